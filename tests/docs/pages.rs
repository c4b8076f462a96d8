//! Manual pages and completions: made from the program's own help, so they have all of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Image, Installation, Output, SOURCE, binary};

/// An installation with the pages and completions of the binary under test, and images of alice.
fn with_pages() -> Installation {
    let installation = Installation::new();
    installation.with_pages();
    let image = Image::busybox();
    installation.load(&installation.alice, &image, "box");
    installation.load(&installation.alice, &image, "team/box:1.0");
    installation
}

/// Commands, and of each its options as words: `-t`, `--tty`.
fn commands() -> Vec<(String, Vec<String>)> {
    let help = |args: &[&str]| {
        Output::of(Command::new(binary()).args(["sarus", "help"]).args(args)).succeeds()
    };
    let list = help(&[]);
    let names = list.lines().filter_map(|line| line.strip_prefix("   ")?.split_once(':'));
    let options = |name: &str| {
        let text = help(&[name]);
        let lines = text.lines().filter(|line| line.starts_with("  -"));
        let words = lines.flat_map(|line| line.split("  ").nth(1).unwrap().split(' '));
        words.filter(|word| word.starts_with('-')).map(str::to_owned).collect()
    };
    names.map(|(name, _)| (name.to_owned(), options(name))).collect()
}

fn share(installation: &Installation, file: &str) -> PathBuf {
    installation.prefix().join("share").join(file)
}

#[test]
fn every_command_has_a_page_with_all_of_its_options() {
    let installation = with_pages();
    let commands = commands();
    assert!(commands.len() >= 8, "{commands:?}");
    let page = |file: &str| {
        let mut man = Command::new("man");
        man.env("MANWIDTH", "80").env("LC_ALL", "C.UTF-8").args(["--warnings", "--local-file"]);
        let output = Output::of(man.arg(share(&installation, file)));
        assert_eq!(output.stderr, "", "{file}");
        output.succeeds()
    };
    let main = page("man/man1/sarus.1");
    for (command, options) in &commands {
        let text = page(&format!("man/man1/sarus-{command}.1"));
        assert!(main.contains(&format!("sarus-{command}(1)")), "{main}");
        assert!(text.contains(&format!("sarus {command}")), "{text}");
        for option in options {
            let shown = text
                .lines()
                .any(|line| line.trim_start().starts_with('-') && line.contains(option.as_str()));
            assert!(shown, "{command} {option}: {text}");
        }
    }
    let configuration = page("man/man5/sarus.json.5");
    assert!(configuration.contains("squashfsCompressionLevel"), "{configuration}");
    let hooks = page("man/man8/hooks.8");
    assert!(hooks.contains("MPI_DEPENDENCY_LIBS"), "{hooks}");
    for text in [&main, &configuration, &hooks] {
        assert!(
            !["`", "](", "**"].iter().any(|mark| text.contains(mark)),
            "Markdown is left: {text}"
        );
    }
}

#[test]
fn what_the_docs_add_to_a_command_belongs_to_one_that_exists() {
    let names: Vec<_> = commands().into_iter().map(|(name, _)| name).collect();
    for entry in fs::read_dir(Path::new(SOURCE).join("docs/man")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(name == "sarus" || names.contains(&name), "no command {name}");
    }
}

/// What bash offers alice for a line.
fn bash(installation: &Installation, line: &str) -> Vec<String> {
    let script = format!(
        "PATH={}/bin:$PATH; source {}; COMP_LINE={line:?}; COMP_POINT=${{#COMP_LINE}}; _sarus;
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        installation.prefix().display(),
        share(installation, "bash-completion/completions/sarus").display(),
    );
    let mut command = installation.as_user(&installation.alice, "bash", ["-c", &script]);
    Output::of(&mut command).succeeds().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_names_of_images() {
    let installation = with_pages();
    let complete = |line: &str| bash(&installation, line);
    let commands = commands();
    let names: Vec<_> = commands.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(complete("sarus "), names);
    assert_eq!(complete("sarus help "), names);
    for (command, options) in &commands {
        let offered = complete(&format!("sarus {command} -"));
        assert_eq!(offered[..offered.len() - 1], options[..], "{command}");
        assert_eq!(offered.last().unwrap(), "--help");
    }
    let images = ["load/library/box:latest", "load/team/box:1.0"];
    assert_eq!(complete("sarus run "), images);
    assert_eq!(complete("sarus --debug run -w /tmp --entrypoint load/t"), [images[1]]);
    // bash takes a colon for the end of a word.
    assert_eq!(complete("sarus rmi load/library/box:l"), ["latest"]);
    assert_eq!(complete("sarus run --centralized-repository "), [""]);
    assert_eq!(complete("sarus run load/team/box:1.0 -"), [""]);
    assert_eq!(complete("sarus run -w "), [""]);
    assert_eq!(complete("sarus pull --temp-dir /us"), ["/usr"]);
    assert_eq!(complete("sarus load /etc/os-rel"), ["/etc/os-release"]);
}

/// A list of images can be written by hand, and a name in it can be anything.
#[test]
fn no_name_of_an_image_is_run_by_a_completion() {
    let installation = with_pages();
    let alice = &installation.alice;
    let repository = installation.repository(alice);
    let name = "$(touch${IFS}pwned)";
    let folder = repository.join("images/load/library").join(name);
    fs::create_dir_all(&folder).unwrap();
    for file in ["latest.squashfs", "latest.meta"] {
        fs::write(folder.join(file), "{}").unwrap();
    }
    let index = repository.join("metadata.json");
    let mut list: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&index).unwrap()).unwrap();
    let mut entry = list["images"][0].clone();
    entry["image"] = name.into();
    entry["uniqueKey"] = format!("load/library/{name}/latest").into();
    list["images"].as_array_mut().unwrap().push(entry);
    fs::write(&index, list.to_string()).unwrap();
    let listed = installation.sarus(alice, &["images", "-q"]).succeeds();
    assert!(listed.contains("pwned"), "{listed}");

    let images = ["load/library/box:latest", "load/team/box:1.0"];
    assert_eq!(bash(&installation, "sarus run "), images);
    assert_eq!(bash(&installation, "sarus run load/library/$"), [""]);
    assert!(!installation.path("home/alice/pwned").exists());
}

#[test]
fn fish_completes_commands_options_and_names_of_images() {
    let installation = with_pages();
    let complete = |line: &str| {
        let script = format!(
            "set PATH {}/bin $PATH; source {}; complete -C '{line}'",
            installation.prefix().display(),
            share(&installation, "fish/vendor_completions.d/sarus.fish").display(),
        );
        let mut command =
            installation.as_user(&installation.alice, "fish", ["--no-config", "-c", &script]);
        let output = Output::of(&mut command).succeeds();
        let words = output.lines().map(|line| line.split('\t').next().unwrap().to_owned());
        words.collect::<Vec<_>>()
    };
    let commands = commands();
    let names: Vec<_> = commands.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(complete("sarus "), names);
    for (command, options) in &commands {
        let offered = complete(&format!("sarus {command} --"));
        for option in options.iter().filter(|option| option.starts_with("--")) {
            assert!(offered.contains(option), "{command} {option}: {offered:?}");
        }
    }
    assert_eq!(complete("sarus run load/t"), ["load/team/box:1.0"]);
}

#[test]
fn zsh_completes_commands_options_and_names_of_images() {
    let installation = with_pages();
    let complete = |line: &str, expected: &str| {
        // A terminal for zsh, as it completes nowhere else.
        let script = format!(
            "zmodload zsh/zpty; zpty z zsh -f -i
             zpty -w z \"PS1=; PATH={0}/bin:\\$PATH; fpath=({0}/share/zsh/site-functions \\$fpath)\"
             zpty -w z 'autoload -U compinit; compinit -u -D; stty cols 200; echo RE\"\"ADY'
             zpty -r -m z shown '*READY*'
             zpty -w -n z \"{line}\"$'\\t\\t'
             zpty -r -m z shown '*{expected}*'
             print -r -- $shown",
            installation.prefix().display(),
        );
        let mut command = installation.as_user(
            &installation.alice,
            "timeout",
            ["30", "zsh", "-f", "-c", &script],
        );
        Output::of(command.env("TERM", "xterm")).succeeds()
    };
    complete("sarus vers", "vers*ion");
    complete("sarus rmi load/lib", "load/library/box:latest");
    let shown = complete("sarus run --", "workdir");
    for option in ["--entrypoint", "--mount", "--mpi", "--tty"] {
        assert!(shown.contains(option), "{shown}");
    }
}
