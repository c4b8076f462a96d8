//! Bytes of a file: read from its layer, holes as zeros.

use std::io::{self, Read};

use crate::import::blob::Blob;
use crate::import::tree::Content;

/// Reader of a file's content.
pub struct ContentReader<'a> {
    content: &'a Content,
    position: u64,
    data: &'a [Blob],
}

impl<'a> ContentReader<'a> {
    pub fn new(content: &'a Content, data: &'a [Blob]) -> Self {
        Self { content, position: 0, data }
    }

    /// Layer, place in it of the bytes at the position, none in a hole, and number of bytes that
    /// follow in one piece.
    fn piece(&self) -> (u16, Option<u64>, u64) {
        let position = self.position;
        match self.content {
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

    /// Passes over `count` bytes, which the content must have.
    pub fn pass(&mut self, count: u64) {
        self.position += count;
    }

    /// Passes over `count` bytes if all of them lie in one hole.
    pub fn pass_hole(&mut self, count: u64) -> bool {
        let (_, place, left) = self.piece();
        let is_hole = place.is_none() && left >= count;
        if is_hole {
            self.position += count;
        }
        is_hole
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
        Ok(count)
    }
}

/// Tells if all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<32>();
    words.iter().all(|word| *word == [0; 32]) && rest.iter().all(|byte| *byte == 0)
}

/// Tells if `left` and `right` are equal; word by word, since musl's `memcmp` compares single bytes.
pub fn same(left: &[u8], right: &[u8]) -> bool {
    let ((left, left_rest), (right, right_rest)) = (left.as_chunks::<8>(), right.as_chunks::<8>());
    left_rest == right_rest
        && left.len() == right.len()
        && left
            .iter()
            .zip(right)
            .all(|(left, right)| u64::from_ne_bytes(*left) == u64::from_ne_bytes(*right))
}
