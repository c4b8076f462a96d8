//! Environment of the program: the host's, overridden by the image's, adapted for GPUs, then changed
//! by the site's `environment`. Manual, "Environmental Transfer", "NVIDIA GPU support" and
//! `environment` of the configuration file reference.

use crate::site::config::Environment;
use std::collections::BTreeMap;
use std::ffi::OsString;

/// Names and values, sorted: the same input gives the same plan.
pub type Variables = BTreeMap<String, String>;

/// Merges the environments of host, image and site. Adds a warning to `warnings` for each variable
/// that is skipped.
#[must_use]
pub fn merge(
    host: &[(OsString, OsString)],
    image: &[String],
    site: &Environment,
    warnings: &mut Vec<String>,
) -> Variables {
    let mut variables = from_host(host, warnings);
    let gpus = variables.get("CUDA_VISIBLE_DEVICES").cloned();
    for text in image {
        match text.split_once('=') {
            Some((name, value)) if is_variable(name, value) => {
                variables.insert(name.to_owned(), value.to_owned());
            }
            _ => {
                warnings.push(format!("skipping variable '{text}' of the image: not NAME=value"));
            }
        }
    }
    select_gpus(&mut variables, gpus.as_deref());
    change(&mut variables, site);
    variables
}

/// True for a name and a value that getenv(3) finds and execve(2) can pass on.
fn is_variable(name: &str, value: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
}

/// Variables of the host. The first value of a repeated name counts, as for getenv(3).
fn from_host(host: &[(OsString, OsString)], warnings: &mut Vec<String>) -> Variables {
    let mut variables = Variables::new();
    for (name, value) in host {
        match (name.to_str(), value.to_str()) {
            (Some(name), Some(value)) if is_variable(name, value) => {
                variables.entry(name.to_owned()).or_insert_with(|| value.to_owned());
            }
            // config.json, which is in UTF-8, cannot express it.
            (Some(name), Some(_)) => {
                warnings.push(format!("skipping variable '{name}': invalid name or value"));
            }
            _ => {
                let name = name.to_string_lossy();
                warnings.push(format!("skipping variable '{name}': not valid UTF-8"));
            }
        }
    }
    variables
}

/// Sets the variables of the NVIDIA Container Toolkit from the host's `CUDA_VISIBLE_DEVICES`, in which
/// the workload manager lists the GPUs of the job.
fn select_gpus(variables: &mut Variables, host: Option<&str>) {
    match host.filter(|devices| *devices != "NoDevFiles") {
        Some(devices) => {
            variables.insert("NVIDIA_VISIBLE_DEVICES".into(), devices.to_owned());
            variables.entry("NVIDIA_DRIVER_CAPABILITIES".into()).or_insert_with(|| "all".into());
            variables.insert("CUDA_VISIBLE_DEVICES".into(), renumbered(devices));
        }
        None => {
            for name in [
                "CUDA_VERSION",
                "CUDA_VISIBLE_DEVICES",
                "NVIDIA_VISIBLE_DEVICES",
                "NVIDIA_DRIVER_CAPABILITIES",
            ] {
                variables.remove(name);
            }
        }
    }
}

/// List of the host's GPUs as the container numbers them, from 0 in the order of the host's numbers:
/// `3,1,5` becomes `1,0,2`. UUIDs (`GPU-…`, `MIG-…`) stay.
fn renumbered(devices: &str) -> String {
    let numbers: Option<Vec<u32>> = devices.split(',').map(|one| one.trim().parse().ok()).collect();
    let Some(numbers) = numbers else { return devices.to_owned() };
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    sorted.dedup();
    let inside = |number: &u32| sorted.binary_search(number).unwrap_or_default().to_string();
    numbers.iter().map(inside).collect::<Vec<_>>().join(",")
}

/// Applies the changes of the site.
fn change(variables: &mut Variables, site: &Environment) {
    for (name, value) in &site.set {
        variables.insert(name.clone(), value.clone());
    }
    for (name, value) in &site.prepend {
        join(variables, name, |old| format!("{value}:{old}"), value);
    }
    for (name, value) in &site.append {
        join(variables, name, |old| format!("{old}:{value}"), value);
    }
    for name in &site.unset {
        variables.remove(name);
    }
}

/// Sets `name` to `joined` of its value, or to `alone` if it is absent or empty: an empty element of
/// PATH would mean the current directory.
fn join(variables: &mut Variables, name: &str, joined: impl Fn(&str) -> String, alone: &str) {
    let value = match variables.get(name) {
        Some(old) if !old.is_empty() => joined(old),
        _ => alone.to_owned(),
    };
    variables.insert(name.to_owned(), value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.into(), value.into())
    }

    fn shown(variables: &Variables) -> Vec<String> {
        variables.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn the_image_overrides_the_host() {
        let host = host(&[("A", "host"), ("B", "x\ny"), ("E", ""), ("A", "second"), ("=X", "1")]);
        let image = ["A=image", "C=a=b", "broken", "=x", "N=a\0b", "\0=x"].map(str::to_owned);
        let mut warnings = Vec::new();
        let all = merge(&host, &image, &Environment::default(), &mut warnings);
        assert_eq!(shown(&all), ["A=image", "B=x\ny", "C=a=b", "E="]);
        assert_eq!(warnings.len(), 5, "{warnings:?}");
    }

    #[test]
    fn the_site_has_the_last_word() {
        let site = Environment {
            set: vec![pair("S", "1"), pair("P", "mid")],
            prepend: vec![pair("P", "/first"), pair("N", "/new")],
            append: vec![pair("P", "/last"), pair("E", "/only")],
            unset: vec!["U".into()],
        };
        let host = host(&[("U", "gone"), ("P", "old"), ("E", "")]);
        let all = merge(&host, &[], &site, &mut Vec::new());
        assert_eq!(shown(&all), ["E=/only", "N=/new", "P=/first:mid:/last", "S=1"]);
    }

    #[test]
    fn gpus_are_renumbered_by_their_numbers() {
        for (outside, inside) in [
            ("3,1,5", "1,0,2"),
            ("10,9", "1,0"),
            ("2", "0"),
            ("0,1", "0,1"),
            ("GPU-7d4b,GPU-1a", "GPU-7d4b,GPU-1a"),
            ("MIG-a/1/0", "MIG-a/1/0"),
            ("", ""),
        ] {
            let image = ["NVIDIA_VISIBLE_DEVICES=all".to_owned()];
            let host = host(&[("CUDA_VISIBLE_DEVICES", outside)]);
            let all = merge(&host, &image, &Environment::default(), &mut Vec::new());
            assert_eq!(all["CUDA_VISIBLE_DEVICES"], inside, "{outside}");
            assert_eq!(all["NVIDIA_VISIBLE_DEVICES"], outside);
            assert_eq!(all["NVIDIA_DRIVER_CAPABILITIES"], "all");
        }
    }

    #[test]
    fn without_gpus_on_the_host_there_are_none_inside() {
        let image = ["CUDA_VERSION=9", "NVIDIA_VISIBLE_DEVICES=all", "X=1"].map(str::to_owned);
        for host in [host(&[]), host(&[("CUDA_VISIBLE_DEVICES", "NoDevFiles")])] {
            let all = merge(&host, &image, &Environment::default(), &mut Vec::new());
            assert_eq!(shown(&all), ["X=1"]);
        }
    }
}
