//! Output of `sarus images`: [`table`] for users, [`json`] and [`names`] for programs.

use super::Image;
use miniserde::Serialize;

/// Number of digits shown of a digest.
const DIGEST: usize = 12;

/// Minimum width of a column.
const WIDTH: usize = 10;

/// Renders `images` as a table with a header.
#[must_use]
pub fn table(images: &[Image]) -> String {
    let header = ["REPOSITORY", "TAG", "DIGEST", "CREATED", "SIZE", "SERVER"].map(String::from);
    let mut rows = vec![header];
    rows.extend(images.iter().map(|image| {
        [
            image.reference.repository_label(),
            image.reference.tag_label().to_owned(),
            image.id.chars().take(DIGEST).collect(),
            image.created.clone(),
            image.size.clone(),
            image.reference.server.clone(),
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

/// An image in the JSON output.
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

/// Renders `images` as a JSON array.
#[must_use]
pub fn json(images: &[Image]) -> String {
    crate::site::json::write(&images.iter().map(row).collect::<Vec<_>>())
}

fn row(image: &Image) -> Row<'_> {
    let Image { reference, id, created, size, paths, .. } = image;
    Row {
        name: reference.full_label(),
        repository: reference.repository_label(),
        tag: reference.tag_label(),
        digest: id,
        created,
        size,
        bytes: paths.squashfs.metadata().ok().map(|status| status.len()),
        server: &reference.server,
        path: paths.squashfs.to_string_lossy(),
    }
}

/// Lists the names to pass to `run` and `rmi`, one in each line.
#[must_use]
pub fn names(images: &[Image]) -> String {
    images.iter().map(|image| image.reference.full_label()).collect::<Vec<_>>().join("\n")
}
