//! `sarus load`: an image from an archive, a directory or stdin becomes one of the repository.

use super::Command;
use argh::{ArgsInfo, FromArgs};
use sarus::cli::args::Words;
use sarus::cli::progress::Progress;
use sarus::error::{Context, Result};
use sarus::image::platform::TargetPlatform;
use sarus::image::reference::Reference;
use sarus::import::source::{self, ImageSelector};
use sarus::import::temp::TempDir;
use sarus::import::{self, workers};
use sarus::log;
use std::path::PathBuf;

pub const COMMAND: Command = Command {
    name: "load",
    usage: "[OPTIONS] FILE REPOSITORY[:TAG]",
    about: "Load the contents of a tarball to create a filesystem image",
    note: "FILE is what docker save, podman save or skopeo wrote, an OCI archive or the\n\
           directory of an OCI layout; - is stdin. The image is then called\n\
           load/<namespace>/<image>, as \"sarus images\" shows.",
    options: Given::get_args_info,
    optional_value: &[],
    failure: 1,
    main,
};

/// The options, as words.
#[derive(FromArgs, ArgsInfo)]
struct Given {
    /// use centralized repository instead of the local one
    #[argh(switch)]
    centralized_repository: bool,
    /// compressor of the image: zstd, gzip, lz4 or none, and :level
    #[argh(option)]
    compression: Option<String>,
    /// temporary directory for layers that have to be inflated
    #[argh(option)]
    temp_dir: Option<PathBuf>,
}

fn main(command: &Command, words: Words) -> Result<u8> {
    let given: Given = command.options(&words)?;
    command.expect_words(&words, 2)?;
    let [file, name] = words.rest.as_slice() else { return Err(command.wrong_number()) };
    let name = name.to_string_lossy();
    let reference = name.parse::<Reference>()?.for_load();
    let (config, repository) = super::open(given.centralized_repository)?;
    let compression = super::compression(&config, given.compression.as_deref())?;
    let temp_dir = TempDir::new(given.temp_dir.as_deref().unwrap_or(&config.temp_dir))?;

    let progress = Progress::new();
    let selector = ImageSelector { name: name.into_owned(), platform: TargetPlatform::host() };
    // Help tells what FILE can be.
    let image = source::open(file, &selector, &temp_dir, progress)
        .map_err(|error| error.or_hint(command.see_help()))?;
    let pending = repository.begin(&reference)?;
    progress.say("> expand image layers ...");
    for layer in &image.layers {
        progress.say(&format!("> extracting     : {}", layer.name));
    }
    let stored = image.layers.iter().map(|layer| layer.blob.length()).sum();
    let context = || format!("cannot import into {}", repository.path().display());
    let merged = progress
        .during(stored, |meter| import::merge(image, &temp_dir, workers::cores(), meter, &|| {}))
        .context(context)?;
    progress.say("> make squashfs ...");
    let imported = merged.write(compression, pending.file(), progress).context(context)?;
    progress.say("> create metadata ...");
    let image = pending.commit(imported.metadata(), &imported.digest().hex())?;
    log::print(&format!("# created: {}", image.image_path.display()));
    log::print(&format!("# created: {}", image.metadata_path.display()));
    Ok(0)
}
