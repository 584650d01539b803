//! Sound into log-mel patches.
