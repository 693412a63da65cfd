//! Number of orders, from the front of the queue, that are written in one transaction.

/// State of the grouping of orders.
#[derive(Debug, Default)]
pub(super) struct Grouping {
    /// Number of the first orders that are being examined together; later ones are not.
    pub(super) examined: Option<usize>,
    /// Number of the first orders that are taken one by one.
    pub(super) singly: usize,
}

impl Grouping {
    /// Has at least `count` of the first orders taken one by one.
    pub(super) fn take_singly(&mut self, count: usize) {
        self.singly = self.singly.max(count);
    }

    /// Notes that the first order was taken by itself.
    pub(super) fn is_taken(&mut self) {
        self.singly = self.singly.saturating_sub(1);
    }
}
