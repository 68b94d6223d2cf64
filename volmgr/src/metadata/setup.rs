//! Making, growing and unmaking a PV.

use super::area::segments;
use super::inspect::read_label;
use super::{MetadataError, PvIo, RECORD_ALIGN};
use crate::label::{
    EXTENT_MIN, FRONT_LABEL, Geometry, LABEL_BYTES, Label, TooSmall, back_label_offset,
};
use std::io;
use uuid::Uuid;

/// So much at either end is zeroed when a PV is made: no older signature may stay.
const WIPE_BYTES: u64 = 1 << 20;

/// Makes the disk a PV that belongs to no group. Destroys what is on it.
pub fn initialise_pv(io: &mut dyn PvIo, pv: Uuid) -> Result<Label, MetadataError> {
    let geometry = Geometry::for_pv(io.size())?;
    let label = Label::new(pv, &geometry);
    let failed = MetadataError::io("clear the disk's ends");
    clear(io, &label).map_err(failed)?;
    write_label(io, &label).map_err(MetadataError::io("write the label"))?;
    Ok(label)
}

fn clear(io: &mut dyn PvIo, label: &Label) -> io::Result<()> {
    let size = io.size();
    zero(io, 0, WIPE_BYTES)?;
    let tail = WIPE_BYTES.min(size - WIPE_BYTES);
    let start = (size - tail).next_multiple_of(RECORD_ALIGN);
    zero(io, start, size - start)?;
    clear_areas(io, label)?;
    io.sync()
}

/// No chain starts in these areas any more.
fn clear_areas(io: &mut dyn PvIo, label: &Label) -> io::Result<()> {
    for segment in label.areas.into_iter().flat_map(segments) {
        zero(io, segment.start, RECORD_ALIGN)?;
    }
    Ok(())
}

fn zero(io: &mut dyn PvIo, at: u64, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    io.write_at(at, &vec![0; len as usize])
}

/// Writes both copies, one after the other, so that one of them is always intact.
pub(super) fn write_label(io: &mut dyn PvIo, label: &Label) -> io::Result<()> {
    let bytes = label.encode();
    io.write_at(FRONT_LABEL, &bytes)?;
    io.sync()?;
    let back = back_label_offset(label.pv_size).ok_or(io::ErrorKind::InvalidInput)?;
    io.write_at(back, &bytes)?;
    io.sync()
}

/// The disk is no PV any more: both labels are zeroed. The metadata stays, for rescue by hand,
/// until something else is written there.
pub fn wipe_pv(io: &mut dyn PvIo) -> Result<(), MetadataError> {
    let size = read_label(io)?
        .chosen()
        .ok_or(MetadataError::NoLabel)?
        .pv_size;
    // The front copy goes last: while it is there, the disk is still what it was.
    let wipe = |io: &mut dyn PvIo| {
        for at in [back_label_offset(size), Some(FRONT_LABEL)] {
            zero(
                io,
                at.ok_or(io::ErrorKind::InvalidInput)?,
                LABEL_BYTES as u64,
            )?;
            io.sync()?;
        }
        Ok(())
    };
    wipe(io).map_err(MetadataError::io("clear the label"))
}

/// The disk belongs to no group any more, whatever its label says: for one that its group does not list.
pub fn free_pv(io: &mut dyn PvIo) -> Result<(), MetadataError> {
    let scan = read_label(io)?;
    let mut label = scan.chosen().ok_or(MetadataError::NoLabel)?.clone();
    (label.group, label.extent_size) = (None, 0);
    write_label(io, &label).map_err(MetadataError::io("write the label"))
}

/// The disk has grown: moves the back area and label to its new end. The caller then commits the
/// group with the PV's new size, which fills the new back area.
///
/// # Errors
/// [`TooSmall`] where the disk is smaller than before; a PV does not shrink.
pub fn grow_pv(io: &mut dyn PvIo) -> Result<Label, MetadataError> {
    let scan = read_label(io)?;
    let old = scan.chosen().ok_or(MetadataError::NoLabel)?.clone();
    let size = io.size();
    if size < old.pv_size {
        return Err(TooSmall {
            need: old.pv_size,
            have: size,
        }
        .into());
    }
    let extent_size = old.extent_size.max(EXTENT_MIN);
    let geometry = Geometry::with_area(size, extent_size, old.areas[0].len)?;
    if back_label_offset(old.pv_size) == Some(geometry.back_label) {
        return Ok(old);
    }
    let mut label = Label::new(old.pv, &geometry);
    label.group = old.group;
    label.extent_size = old.extent_size;
    let failed = || MetadataError::io("move the metadata to the new end");
    // The front area and label stay valid throughout; the back ones move.
    for segment in segments(label.areas[1]) {
        zero(io, segment.start, RECORD_ALIGN).map_err(failed())?;
    }
    let bytes = label.encode();
    io.write_at(geometry.back_label, &bytes).map_err(failed())?;
    io.sync().map_err(failed())?;
    io.write_at(FRONT_LABEL, &bytes).map_err(failed())?;
    io.sync().map_err(failed())?;
    Ok(label)
}

/// Writes the label where one of its two copies is damaged.
pub fn mend_labels(io: &mut dyn PvIo) -> Result<(), MetadataError> {
    let scan = read_label(io)?;
    let label = scan.chosen().ok_or(MetadataError::NoLabel)?;
    let bytes = label.encode();
    let failed = || MetadataError::io("write the label again");
    let back = back_label_offset(label.pv_size).filter(|_| scan.back.is_err());
    let front = scan.front.is_err().then_some(FRONT_LABEL);
    for at in front.into_iter().chain(back) {
        io.write_at(at, &bytes).map_err(failed())?;
        io.sync().map_err(failed())?;
    }
    Ok(())
}
