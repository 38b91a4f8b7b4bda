//! Events as lines of a file that is rotated, or of standard output.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;

/// When a log file is put aside, and which of those are kept; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    pub megabytes: u64,
    pub backups: usize,
    pub days: u64,
}

impl Default for Rotation {
    /// Upstream's.
    fn default() -> Self {
        Rotation { megabytes: 100, backups: 100, days: 366 }
    }
}

/// A log of events.
pub struct Log {
    target: Mutex<Target>,
}

enum Target {
    StandardOutput,
    File(Rotated),
}

struct Rotated {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    size: u64,
}

impl Log {
    /// Appends to this file, or writes to standard output where it is `-`.
    pub fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        let target = match path.as_os_str() == "-" {
            true => Target::StandardOutput,
            false => Target::File(Rotated::open(path.to_path_buf(), rotation)?),
        };
        Ok(Log { target: Mutex::new(target) })
    }

    /// Writes each event as a line; all of them or, with an error, some.
    pub fn write(&self, events: &[Bytes]) -> io::Result<()> {
        match &mut *self.target.lock() {
            Target::StandardOutput => {
                let mut out = io::stdout().lock();
                for event in events {
                    out.write_all(&line(event))?;
                }
                out.flush()
            }
            Target::File(file) => events.iter().try_for_each(|event| file.write(&line(event))),
        }
    }
}

/// One write a line: nobody who reads along sees half of one.
fn line(event: &Bytes) -> Vec<u8> {
    let mut line = Vec::with_capacity(event.len() + 1);
    line.extend_from_slice(event);
    line.push(b'\n');
    line
}

impl Rotated {
    fn open(path: PathBuf, rotation: Rotation) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = append(&path)?;
        let size = file.metadata()?.len();
        Ok(Rotated { path, rotation, file, size })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let limit = self.rotation.megabytes * 1024 * 1024;
        if limit > 0 && self.size > 0 && self.size + line.len() as u64 > limit {
            self.rotate()?;
        }
        self.file.write_all(line)?;
        self.size += line.len() as u64;
        Ok(())
    }

    /// `audit.log` becomes `audit-2006-01-02T15-04-05.000.log`.
    fn rotate(&mut self) -> io::Result<()> {
        let stem = self.stem();
        let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S.%3f").to_string();
        let aside = self.path.with_file_name(format!("{stem}-{time}{}", self.extension()));
        fs::rename(&self.path, aside)?;
        self.file = append(&self.path)?;
        self.size = 0;
        self.remove_old();
        Ok(())
    }

    fn stem(&self) -> String {
        self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn extension(&self) -> String {
        self.path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default()
    }

    /// The files put aside, the newest first: their names hold their times.
    fn backups(&self) -> Vec<PathBuf> {
        let (prefix, suffix) = (format!("{}-", self.stem()), self.extension());
        let directory = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let is_backup = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.strip_prefix(&prefix)
                .and_then(|rest| rest.strip_suffix(&suffix))
                .is_some_and(|time| time.len() == "2006-01-02T15-04-05.000".len() && time.as_bytes()[10] == b'T')
        };
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let mut backups: Vec<PathBuf> = entries.map(|e| e.path()).filter(is_backup).collect();
        backups.sort_by(|a, b| b.cmp(a));
        backups
    }

    fn remove_old(&self) {
        let Rotation { backups: most, days, .. } = self.rotation;
        let too_old = |path: &PathBuf| {
            let age = fs::metadata(path).and_then(|m| m.modified()).map(|t| SystemTime::now().duration_since(t));
            days > 0 && age.is_ok_and(|age| age.is_ok_and(|age| age > Duration::from_secs(days * 24 * 3600)))
        };
        for (i, path) in self.backups().into_iter().enumerate() {
            if ((most > 0 && i >= most) || too_old(&path))
                && let Err(error) = fs::remove_file(&path)
            {
                tracing::warn!(%error, path = %path.display(), "an old audit log stays");
            }
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_put_aside_and_the_oldest_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.log");
        fs::write(directory.path().join("audit-other.log"), "not ours").expect("written");
        let log = Log::open(&path, Rotation { megabytes: 1, backups: 2, days: 0 }).expect("opened");
        let event = Bytes::from(vec![b'x'; 600 * 1024]);
        for _ in 0..5 {
            log.write(std::slice::from_ref(&event)).expect("written");
            // Backups are told apart by their time in milliseconds.
            let before = jiff::Timestamp::now().as_millisecond();
            while jiff::Timestamp::now().as_millisecond() == before {
                std::hint::spin_loop();
            }
        }
        let names = fs::read_dir(directory.path()).expect("a directory").flatten();
        let mut names: Vec<String> = names.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        assert_eq!(names.len(), 4, "{names:?}");
        assert!(names.contains(&"audit.log".to_string()) && names.contains(&"audit-other.log".to_string()));
        assert_eq!(fs::metadata(&path).expect("a file").len(), 600 * 1024 + 1);
    }
}
