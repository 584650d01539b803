//! libasound's messages, in our log.
//!
//! Left alone, libasound writes to standard error: a line for every PCM of alsa.conf that this machine lacks, dozens a
//! try, and a device that is away is tried every few seconds, for days. Errors are not lost here: they come back as the
//! result of the call.

/// Does `work`, and logs at level debug what libasound says meanwhile on this thread.
pub(super) fn log_alsa_messages<T>(work: impl FnOnce() -> T) -> T {
    let messages = alsa::Output::local_error_handler();
    let result = work();
    if let Ok(messages) = messages {
        messages.borrow().buffer_string(|text| {
            String::from_utf8_lossy(text).lines().for_each(|line| log::debug!("{line}"));
        });
    }
    result
}
