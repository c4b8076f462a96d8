//! The output of `sarus images`: for people [`table`], for programs [`json`] and [`names`].

use super::Image;
use crate::image::reference::{full_label, repository_label, tag_label};
use miniserde::Serialize;

/// As many digits of a digest as tell images apart.
const DIGEST: usize = 12;

/// The least width of a column.
const WIDTH: usize = 10;

/// The images as a table, header included, in the order that they have.
#[must_use]
pub fn table(images: &[Image]) -> String {
    let header = ["REPOSITORY", "TAG", "DIGEST", "CREATED", "SIZE", "SERVER"].map(String::from);
    let mut rows = vec![header];
    rows.extend(images.iter().map(|image| {
        [
            repository_label(&image.server, &image.namespace, &image.image),
            tag_label(&image.tag).to_owned(),
            image.digest.chars().take(DIGEST).collect(),
            image.created.clone(),
            image.size.clone(),
            image.server.clone(),
        ]
    }));
    let mut widths = [WIDTH; 6];
    for row in &rows {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = text.chars().count().max(*width);
        }
    }
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(widths).map(|(text, width)| format!("{text:<width$}"));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// An image, for programs.
#[derive(Serialize)]
struct Row<'a> {
    name: String,
    repository: String,
    tag: &'a str,
    digest: &'a str,
    created: &'a str,
    size: &'a str,
    bytes: Option<u64>,
    server: &'a str,
    path: std::borrow::Cow<'a, str>,
}

/// The images as an array in JSON: what [`table`] has, and more.
#[must_use]
pub fn json(images: &[Image]) -> String {
    crate::site::json::write(&images.iter().map(row).collect::<Vec<_>>())
}

fn row(image: &Image) -> Row<'_> {
    let Image { server, namespace, image: last, tag, digest, created, size, .. } = image;
    Row {
        name: name(image),
        repository: repository_label(server, namespace, last),
        tag: tag_label(tag),
        digest,
        created,
        size,
        bytes: image.image_path.metadata().ok().map(|status| status.len()),
        server,
        path: image.image_path.to_string_lossy(),
    }
}

/// The names to give to `run` and `rmi`, one in each line.
#[must_use]
pub fn names(images: &[Image]) -> String {
    images.iter().map(name).collect::<Vec<_>>().join("\n")
}

fn name(image: &Image) -> String {
    full_label(&image.server, &image.namespace, &image.image, &image.tag)
}

/// A size for people: `2.61MB`.
#[must_use]
#[allow(clippy::cast_precision_loss)] // two decimals are shown
pub fn size(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut units = ["B", "KB", "MB", "GB", "TB"].iter().peekable();
    let mut unit = "";
    while let Some(next) = units.next() {
        unit = next;
        if size <= 1024.0 || units.peek().is_none() {
            break;
        }
        size /= 1024.0;
    }
    format!("{size:.2}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_the_largest_fitting_unit() {
        for (bytes, shown) in [
            (0, "0.00B"),
            (1024, "1024.00B"),
            (1025, "1.00KB"),
            (2_736_784, "2.61MB"),
            (5_000_000_000, "4.66GB"),
            (u64::MAX, "16777216.00TB"),
        ] {
            assert_eq!(size(bytes), shown);
        }
    }
}
