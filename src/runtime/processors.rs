//! How many processors this process may use, and how a run should share them.

use std::num::NonZeroUsize;

/// Processors of this process.
#[derive(Debug, Clone, Copy)]
pub struct Processors {
    available: NonZeroUsize,
}

impl Processors {
    /// Reads the affinity and the control group's quota; ONNX Runtime itself only sees the host's
    /// cores.
    pub fn of_process() -> Self {
        Self { available: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN) }
    }

    /// So many processors.
    pub fn new(available: NonZeroUsize) -> Self {
        Self { available }
    }

    /// How many there are.
    pub fn available(self) -> usize {
        self.available.get()
    }

    /// Threads inside a run when `instances` may run at the same time: an equal share, at least 1.
    pub fn intra_op_threads(self, instances: NonZeroUsize) -> NonZeroUsize {
        NonZeroUsize::new(self.available.get() / instances).unwrap_or(NonZeroUsize::MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_share_the_processors() {
        let count = |number| NonZeroUsize::new(number).unwrap();
        let eight = Processors::new(count(8));
        assert_eq!(eight.intra_op_threads(count(1)), count(8));
        assert_eq!(eight.intra_op_threads(count(3)), count(2));
        assert_eq!(eight.intra_op_threads(count(20)), count(1));
        assert!(Processors::of_process().available() >= 1);
    }
}
