//! Totals that are written to a file before they are shown.
//!
//! A daemon that is killed is followed by one that begins with the file. So none of the numbers that anybody has seen falls,
//! however often totals are asked for. Knows neither a clock nor who asks.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::file::{NotRead, TotalsFile};
use super::ledger::Ledger;
use super::totals::Totals;

/// A ledger, its file, and the totals that are in the file. Only [`Self::saved_totals`] returns totals.
#[derive(Debug)]
pub struct PersistedLedger {
    file: TotalsFile,
    boot: String,
    ledger: Ledger,
    saved: Arc<Totals>,
}

impl PersistedLedger {
    /// Goes on with the ledger in the file; without one, or with one that cannot be read, all totals begin at zero. Returns why the
    /// file was not read. `boot` names the machine's present boot.
    pub fn open(file: TotalsFile, boot: String) -> (Self, Option<NotRead>) {
        let (ledger, error) = match file.load(&boot) {
            Ok(ledger) => (ledger.unwrap_or_default(), None),
            Err(error) => (Ledger::new(), Some(error)),
        };
        let saved = Arc::new(ledger.totals());
        let persisted = Self {
            file,
            boot,
            ledger,
            saved,
        };
        (persisted, error)
    }

    /// Returns the ledger, which may be ahead of the saved totals.
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Returns the ledger, to add to it.
    pub const fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// Returns the file.
    pub const fn file(&self) -> &TotalsFile {
        &self.file
    }

    /// Writes the ledger, and shows its totals from then on. `sampled`: the time of its last sample.
    ///
    /// # Errors
    /// Fails when the file cannot be written; the totals that were written last are shown then.
    pub fn save(&mut self, sampled: Option<Instant>) -> io::Result<()> {
        self.file.save(&self.ledger, &self.boot)?;
        self.saved = Arc::new(Totals {
            at: sampled,
            ..self.ledger.totals()
        });
        Ok(())
    }

    /// Returns the totals that were written last.
    pub fn saved_totals(&self) -> Arc<Totals> {
        Arc::clone(&self.saved)
    }
}
