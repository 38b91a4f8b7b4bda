//! Where the last lines of a file begin.

use std::io::SeekFrom;

use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

const BLOCK: u64 = 16 << 10;

/// The offset at which the last `lines` lines begin. An unfinished line at the end counts as one.
pub(super) async fn offset_of_last(file: &mut File, lines: u64) -> std::io::Result<u64> {
    let size = file.seek(SeekFrom::End(0)).await?;
    if lines == 0 {
        return Ok(size);
    }
    let mut found = 0;
    let mut end = size;
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        let mut block = vec![0; (end - start) as usize];
        file.seek(SeekFrom::Start(start)).await?;
        file.read_exact(&mut block).await?;
        for (at, byte) in block.iter().enumerate().rev() {
            let position = start + at as u64;
            // The line feed at the very end ends the last line and begins none.
            if *byte != b'\n' || position + 1 == size {
                continue;
            }
            found += 1;
            if found == lines {
                return Ok(position + 1);
            }
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn counts_lines_from_the_end() {
        let long = "x".repeat(40_000);
        for (text, lines, expected) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 9, "a\nb\n"),
            ("a\n", 0, ""),
            ("", 3, ""),
            (&format!("{long}\n{long}\nz\n"), 2, &format!("{long}\nz\n")),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("0.log");
            std::fs::write(&path, text).unwrap();
            let offset = offset_of_last(&mut File::open(&path).await.unwrap(), lines).await.unwrap();
            assert_eq!(&text[offset as usize..], expected);
        }
    }
}
