//! The bytes of files: read in order for `backhand`, and ahead of it for the compressors.

use std::io::{self, Read};

use super::BLOCK;
use super::pool::Queue;
use crate::cli::progress::Meter;
use crate::import::blob::Blob;
use crate::import::tree::Content;

/// Reads a file's content, holes as zeros. One exists for each file of an image: kept small.
pub struct ContentReader<'a> {
    content: Content,
    position: u64,
    data: &'a [Blob],
    meter: Option<&'a Meter>,
}

impl<'a> ContentReader<'a> {
    pub fn new(content: Content, data: &'a [Blob], meter: Option<&'a Meter>) -> Self {
        Self { content, position: 0, data, meter }
    }

    /// The layer, and where in it the bytes at the position lie, with how many follow in one
    /// piece; no place in a hole.
    fn piece(&self) -> (u16, Option<u64>, u64) {
        let position = self.position;
        match &self.content {
            Content::Whole { layer, offset, length } => {
                (*layer, Some(offset + position), length.saturating_sub(position))
            }
            Content::Sparse { layer, map } => {
                let after = map.extents.partition_point(|extent| extent.at <= position);
                let next = map.extents.get(after).map_or(map.length, |extent| extent.at);
                let here = after.checked_sub(1).and_then(|at| map.extents.get(at));
                match here.filter(|extent| position < extent.at + extent.length) {
                    Some(extent) => {
                        let into = position - extent.at;
                        (*layer, Some(extent.offset + into), extent.length - into)
                    }
                    None => (*layer, None, next.saturating_sub(position)),
                }
            }
        }
    }
}

impl Read for ContentReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (layer, place, left) = self.piece();
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = buffer.get_mut(..wanted).unwrap_or_default();
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = match place {
            None => {
                buffer.fill(0);
                wanted
            }
            Some(place) => {
                let blob = self.data.get(usize::from(layer));
                let blob = blob.ok_or(io::ErrorKind::UnexpectedEof)?;
                // A layer that lost bytes since it was parsed.
                match blob.read_at(buffer, place)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => count,
                }
            }
        };
        self.position += count as u64;
        if let Some(meter) = self.meter {
            meter.add(count as u64);
        }
        Ok(count)
    }
}

/// Hands all blocks of an image to the compressors, in the order in which `backhand` will ask for
/// them: whole blocks of each file but those of zeros; files shorter than a block gathered in
/// fragments. A wrong guess costs time and nothing else, so a failure to read just ends it:
/// `backhand` will meet and report the same.
pub fn walk(contents: &[Content], data: &[Blob], queue: &Queue) {
    let mut fragment = Vec::with_capacity(BLOCK);
    for content in contents {
        let mut reader = ContentReader::new(content.clone(), data, None);
        if walk_file(&mut reader, content.length(), &mut fragment, queue).is_none() {
            break;
        }
    }
    queue.push(fragment);
    queue.end();
}

fn walk_file(
    reader: &mut ContentReader<'_>,
    length: u64,
    fragment: &mut Vec<u8>,
    queue: &Queue,
) -> Option<()> {
    let mut left = usize::try_from(length).ok()?;
    if left < BLOCK {
        if fragment.len() + left > BLOCK {
            let full = std::mem::replace(fragment, queue.buffer());
            queue.push(full).then_some(())?;
        }
        return read(reader, left, fragment);
    }
    while left > 0 {
        let count = left.min(BLOCK);
        left -= count;
        // Holes of whole blocks need not even be filled with zeros.
        if count == BLOCK && reader.pass_hole(BLOCK as u64) {
            continue;
        }
        let mut block = queue.buffer();
        read(reader, count, &mut block)?;
        if !is_zero(&block) {
            queue.push(block).then_some(())?;
        }
    }
    Some(())
}

/// Appends exactly `count` bytes.
fn read(reader: &mut ContentReader<'_>, count: usize, buffer: &mut Vec<u8>) -> Option<()> {
    let start = buffer.len();
    buffer.resize(start + count, 0);
    reader.read_exact(buffer.get_mut(start..)?).ok()
}

impl ContentReader<'_> {
    /// Goes `count` bytes on if all of them lie in one hole.
    fn pass_hole(&mut self, count: u64) -> bool {
        let (_, place, left) = self.piece();
        let hole = place.is_none() && left >= count;
        if hole {
            self.position += count;
        }
        hole
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<32>();
    words.iter().all(|word| *word == [0; 32]) && rest.iter().all(|byte| *byte == 0)
}
