//! Where a disk's file has holes: bytes that need not be read to be known.

use blockio::ByteRange;
use nix::errno::Errno;
use nix::unistd::{Whence, lseek64};
use std::fs::File;
use std::sync::Arc;

/// A run of bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// To be read; bytes.
    Data(u64),
    /// Known to be zero; bytes.
    Hole(u64),
}

/// Where the file that was last asked is known to have data.
///
/// To look for the next hole may take as long as there are pages of data before it, up to the end of
/// the file. Asked anew for each job of a large file, that costs more than to send it; so what a
/// look has found serves the jobs behind, too. Where a hole has been punched since, its zeroes are
/// read and sent like other data: slower, and as right. Holes are never taken from memory.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Held, so that no other file can have its place in memory.
    data: Option<(Arc<File>, ByteRange)>,
}

impl Known {
    /// What the file has at the start of the range, see [`look`], without asking again about data
    /// found before.
    pub(super) fn run_at(
        &mut self,
        file: &Arc<File>,
        range: ByteRange,
        shift: u64,
        align: u64,
        hole_min: u64,
    ) -> Result<Run, Errno> {
        if let Some((known, data)) = &self.data
            && Arc::ptr_eq(known, file)
            && data.start() <= range.start()
            && range.start() < data.end()
        {
            let end = align_up(data.end(), shift, align).min(range.end());
            return Ok(Run::Data(end - range.start()));
        }
        let (run, data) = look(file, range, shift, align, hole_min)?;
        if let Some(data) = data {
            self.data = Some((Arc::clone(file), data));
        }
        Ok(run)
    }
}

/// What the file has at the start of the range: a run of data or hole, not longer than the range
/// and not empty unless the range is; and all the data known to be there, perhaps past the range.
///
/// Holes shorter than `hole_min` count as data. Holes begin and end where `position + shift` is a
/// multiple of `align` (a power of two): the sink takes whole blocks only. Where the file does not
/// tell (a block device), all is data.
fn look(
    file: &File,
    range: ByteRange,
    shift: u64,
    align: u64,
    hole_min: u64,
) -> Result<(Run, Option<ByteRange>), Errno> {
    let Ok(start) = i64::try_from(range.start()) else {
        return Err(Errno::EOVERFLOW);
    };
    let data_start = match seek(file, start, Whence::SeekData) {
        Ok(found) => found.clamp(range.start(), range.end()),
        // Nothing but a hole from here to the end of the file.
        Err(Errno::ENXIO) => range.end(),
        Err(Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ESPIPE) => {
            return Ok((Run::Data(range.len()), None));
        }
        Err(errno) => return Err(errno),
    };
    let hole_end = if data_start == range.end() {
        data_start
    } else {
        align_down(data_start, shift, align)
    };
    let starts_aligned = (range.start().wrapping_add(shift)) & (align - 1) == 0;
    if starts_aligned && hole_end.saturating_sub(range.start()) >= hole_min {
        return Ok((Run::Hole(hole_end - range.start()), None));
    }
    if data_start == range.end() {
        return Ok((Run::Data(range.len()), None));
    }
    let Ok(from) = i64::try_from(data_start) else {
        return Err(Errno::EOVERFLOW);
    };
    let found = seek(file, from, Whence::SeekHole).unwrap_or(range.end());
    let data_end = align_up(found, shift, align).clamp(range.start(), range.end());
    // A short hole before the data is sent with it; what is known begins behind it.
    let known = found.checked_sub(data_start).filter(|len| *len > 0);
    let known = known.map(|len| ByteRange::new(data_start, len));
    // A file that changes under the two calls may say anything; there is progress all the same.
    let run = match data_end - range.start() {
        0 => Run::Data(range.len()),
        len => Run::Data(len),
    };
    Ok((run, known))
}

fn seek(file: &File, from: i64, whence: Whence) -> Result<u64, Errno> {
    let found = lseek64(file, from, whence)?;
    u64::try_from(found).map_err(|_| Errno::EOVERFLOW)
}

fn align_down(position: u64, shift: u64, align: u64) -> u64 {
    position.saturating_sub(position.wrapping_add(shift) & (align - 1))
}

fn align_up(position: u64, shift: u64, align: u64) -> u64 {
    let over = position.wrapping_add(shift) & (align - 1);
    if over == 0 {
        position
    } else {
        position.saturating_add(align - over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    const MIB: u64 = 1 << 20;

    fn runs(file: &File, range: ByteRange) -> Vec<Run> {
        let mut runs = Vec::new();
        let mut rest = range;
        while !rest.is_empty() {
            let run = look(file, rest, 0, 4096, 65536).unwrap().0;
            let (Run::Data(len) | Run::Hole(len)) = run;
            assert!(len > 0 && len <= rest.len());
            rest = ByteRange::new(rest.start() + len, rest.len() - len);
            runs.push(run);
        }
        runs
    }

    #[test]
    fn holes_are_found_and_short_ones_are_not_worth_it() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 * MIB).unwrap();
        assert_eq!(
            runs(&file, ByteRange::new(MIB, MIB)),
            [Run::Hole(MIB)],
            "in the middle of nothing"
        );
        file.write_all_at(&[1; 65536], 2 * MIB).unwrap();
        file.write_all_at(&[1; 65536], 2 * MIB + 65536 + 16384)
            .unwrap();
        let found = runs(&file, ByteRange::new(0, 8 * MIB));
        assert_eq!(found.first(), Some(&Run::Hole(2 * MIB)));
        let last_hole = 8 * MIB - (2 * MIB + 2 * 65536 + 16384);
        assert_eq!(found.last(), Some(&Run::Hole(last_hole)));
        assert!(
            found[1..found.len() - 1]
                .iter()
                .all(|run| matches!(run, Run::Data(_)))
        );
    }

    #[test]
    fn holes_are_whole_blocks_of_the_volume() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4 * MIB).unwrap();
        file.write_all_at(&[1; 4096], MIB).unwrap();
        // The volume's bytes lie 512 bytes off the file's.
        let (run, _) = look(&file, ByteRange::new(512, MIB), 4096 - 512, 4096, 65536).unwrap();
        assert_eq!(run, Run::Hole(MIB - 4096));
    }

    #[test]
    fn what_cannot_tell_is_data() {
        let null = File::open("/dev/null").unwrap();
        let run = look(&null, ByteRange::new(0, MIB), 0, 4096, 65536);
        assert!(matches!(run, Ok((Run::Data(_) | Run::Hole(_), _))));
    }

    #[test]
    fn known_data_serves_later_jobs_and_holes_are_looked_for() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 * MIB).unwrap();
        file.write_all_at(&[1; 2 << 20], 0).unwrap();
        let file = Arc::new(file);
        let mut known = Known::default();
        let mut at = |start, len| known.run_at(&file, ByteRange::new(start, len), 0, 4096, 65536);
        assert_eq!(at(0, MIB), Ok(Run::Data(MIB)));
        // What became a hole is still data, to its end; behind it is asked again.
        file.set_len(MIB).unwrap();
        file.set_len(8 * MIB).unwrap();
        assert_eq!(at(MIB, 3 * MIB), Ok(Run::Data(MIB)));
        assert_eq!(at(2 * MIB, 2 * MIB), Ok(Run::Hole(2 * MIB)));
        // Data in what was a hole is found.
        file.write_all_at(&[2; 4096], 4 * MIB).unwrap();
        assert!(matches!(at(4 * MIB, MIB), Ok(Run::Data(len)) if len >= 4096));
        // Another file is asked for itself.
        let other = Arc::new(tempfile::tempfile().unwrap());
        other.set_len(MIB).unwrap();
        let run = known.run_at(&other, ByteRange::new(0, MIB), 0, 4096, 65536);
        assert_eq!(run, Ok(Run::Hole(MIB)));
    }
}
