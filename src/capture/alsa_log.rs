//! What libasound has to say, in our log.
//!
//! In: a piece of work that asks libasound for something. Out: what it does, and its remarks at level debug.
//! Left alone, they go to standard error: a line for every PCM of alsa.conf that this machine lacks, dozens a try, and a device
//! that is away is tried every few seconds, for days.
//! Never: hides an error, which comes back as the work's result; catches what other threads say.

/// Does `work`, and logs what libasound says meanwhile on this thread.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> T {
    let said = alsa::Output::local_error_handler();
    let done = work();
    if let Ok(said) = said {
        said.borrow().buffer_string(|text| {
            String::from_utf8_lossy(text).lines().for_each(|line| log::debug!("{line}"));
        });
    }
    done
}
