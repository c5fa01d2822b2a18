//! How long work of this module tells how far it is; the library itself prints nothing.

/// Receives how far an import or a download is.
pub trait Progress {
    /// A stage begins, with the bytes it will go through when they are known.
    fn start(&mut self, stage: &str, total: Option<u64>);

    /// So many more bytes of the stage are done.
    fn advance(&mut self, bytes: u64);

    /// The operator should know this line, though the work goes on.
    fn notice(&mut self, line: &str);
}

/// Tells nobody.
pub struct Quiet;

impl Progress for Quiet {
    fn start(&mut self, _stage: &str, _total: Option<u64>) {}
    fn advance(&mut self, _bytes: u64) {}
    fn notice(&mut self, _line: &str) {}
}
