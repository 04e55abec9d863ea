//! Places on the way of a request at which a test lets this process die, or stand still.
//!
//! The tests run the real binary, and "killed between the commit and the answer" cannot be hit from outside. So
//! the way is marked with [`reach`], and `EASEL_FAULT=after_hold:kill` arms one mark: the first to come by is
//! killed as `kill -9` would, at just that place (`stop` has it stand still until SIGCONT). All of it is there
//! with debug assertions only: in a release build a mark is an empty function and nobody looks at the variable.

/// The variable that arms one mark: `POINT:kill` or `POINT:stop`.
#[cfg(debug_assertions)]
pub(crate) const VARIABLE: &str = "EASEL_FAULT";

/// A mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// Admitted, and nothing written yet.
    BeforeHold,
    /// The hold is committed; nobody has been called.
    AfterHold,
    /// The first bytes of a picture have come.
    DuringCall,
    /// What came is in the store, and in this process's memory.
    AfterPictures,
    /// The settlement is ready to be written.
    BeforeSettlement,
    /// It is committed, and the client does not know.
    AfterSettlement,
}

#[cfg(debug_assertions)]
pub(crate) use self::armed::{arm, reach};

/// Somebody comes by a mark, and nothing happens.
#[cfg(not(debug_assertions))]
#[inline]
pub(crate) fn reach(_: Point) {}

#[cfg(debug_assertions)]
mod armed {
    use std::{
        sync::{
            OnceLock,
            atomic::{AtomicBool, Ordering},
        },
        thread,
        time::Duration,
    };

    use rustix::process::{Signal, getpid, kill_process};

    use super::{Point, VARIABLE};

    /// What is armed in this process.
    static FAULT: OnceLock<Fault> = OnceLock::new();

    #[derive(Debug)]
    struct Fault {
        at: Point,
        signal: Signal,
        has_happened: AtomicBool,
    }

    /// Arms what the variable says, if it is set.
    ///
    /// # Errors
    /// What it should have said.
    pub(crate) fn arm(value: Option<&str>) -> Result<(), String> {
        if let Some(value) = value {
            let fault = parse(value).ok_or_else(|| {
                format!("{VARIABLE} is '{value}', which is no POINT:kill or POINT:stop")
            })?;
            FAULT.get_or_init(|| fault);
        }
        Ok(())
    }

    /// Somebody comes by a mark.
    pub(crate) fn reach(point: Point) {
        if let Some(fault) = FAULT.get()
            && fault.at == point
            && !fault.has_happened.swap(true, Ordering::SeqCst)
        {
            // It cannot fail: the process is our own.
            kill_process(getpid(), fault.signal).ok();
            if fault.signal == Signal::KILL {
                loop {
                    thread::park();
                }
            }
            // Any thread may be the one that takes the signal, and this one would go on until it has.
            thread::park_timeout(Duration::from_secs(1));
        }
    }

    fn parse(value: &str) -> Option<Fault> {
        let (point, deed) = value.split_once(':')?;
        Some(Fault {
            at: match point {
                "before_hold" => Point::BeforeHold,
                "after_hold" => Point::AfterHold,
                "during_call" => Point::DuringCall,
                "after_pictures" => Point::AfterPictures,
                "before_settlement" => Point::BeforeSettlement,
                "after_settlement" => Point::AfterSettlement,
                _ => return None,
            },
            signal: match deed {
                "kill" => Signal::KILL,
                "stop" => Signal::STOP,
                _ => return None,
            },
            has_happened: AtomicBool::new(false),
        })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_fault_is_a_point_and_a_deed() {
            let read = |value| parse(value).map(|fault| (fault.at, fault.signal));
            assert_eq!(
                read("after_hold:kill"),
                Some((Point::AfterHold, Signal::KILL))
            );
            assert_eq!(
                read("before_settlement:stop"),
                Some((Point::BeforeSettlement, Signal::STOP))
            );
            for wrong in ["", "after_hold", "after_hold:", "nowhere:kill", "kill"] {
                assert_eq!(read(wrong), None, "{wrong}");
            }
            assert!(arm(Some("nowhere:kill")).is_err());
        }
    }
}
