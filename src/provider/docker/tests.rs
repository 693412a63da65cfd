mod fake;
mod following;
mod tracking;
