use super::*;

const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn shown(text: &str) -> String {
    match text.parse::<Reference>() {
        Ok(reference) => reference.to_string(),
        Err(error) => format!("! {error}"),
    }
}

#[test]
fn who_copies_a_name_without_a_tag_is_told_where_it_stands() {
    let error = "quay.io/x/y:<none>".parse::<Reference>().unwrap_err();
    assert!(error.hint().unwrap().contains("sarus images --quiet"));
}

#[test]
fn what_is_left_out_is_filled_in() {
    for (text, complete) in [
        ("alpine", "index.docker.io/library/alpine:latest"),
        (" alpine ", "index.docker.io/library/alpine:latest"),
        ("alpine:3.20", "index.docker.io/library/alpine:3.20"),
        ("user/image", "index.docker.io/user/image:latest"),
        ("a/b/c/d:t", "index.docker.io/a/b/c/d:t"),
        ("docker.io/alpine", "index.docker.io/library/alpine:latest"),
        ("index.docker.io/library/alpine", "index.docker.io/library/alpine:latest"),
        ("docker://quay.io/ns/image", "quay.io/ns/image:latest"),
        ("https://quay.io/ns/image:1", "quay.io/ns/image:1"),
        ("nvcr.io/nvidia/k8s/cuda-sample:nbody", "nvcr.io/nvidia/k8s/cuda-sample:nbody"),
        ("localhost/image", "localhost/image:latest"),
        ("localhost:5000/image", "localhost:5000/image:latest"),
        ("registry:5000/a/b:T_1.x-y", "registry:5000/a/b:T_1.x-y"),
        ("10.0.0.1:80/image", "10.0.0.1:80/image:latest"),
        ("load/library/my_debian", "load/library/my_debian:latest"),
        ("load/image", "index.docker.io/load/image:latest"),
        ("a__b/c--d/e.f_g:1", "index.docker.io/a__b/c--d/e.f_g:1"),
    ] {
        assert_eq!(shown(text), complete, "{text}");
    }
}

#[test]
fn what_the_grammar_forbids_is_refused_with_the_reason() {
    let long = "a".repeat(256);
    let tag = format!("a:{}", "t".repeat(129));
    let digest_as_tag = format!("a:sha256-{HEX}");
    for (text, reason) in [
        ("", "a part of the name is empty"),
        ("/etc/passwd", "a part of the name is empty"),
        ("a//b", "a part of the name is empty"),
        ("a/", "a part of the name is empty"),
        ("../../etc", "invalid registry host '..'"),
        ("./a", "invalid registry host '.'"),
        ("a/../b", "'..' must be words joined by '.', '_', '__' or '-'"),
        ("a/.b", "'.b' must be words joined by '.', '_', '__' or '-'"),
        ("a..b", "'a..b' must be words joined by '.', '_', '__' or '-'"),
        ("a___b", "'a___b' must be words joined by '.', '_', '__' or '-'"),
        ("a-", "'a-' must be words joined by '.', '_', '__' or '-'"),
        ("Alpine", "'Alpine' must be in lower case"),
        ("my image", "invalid character ' ' in 'my image'"),
        ("a\0b", "invalid character '\\0' in 'a\0b'"),
        ("é", "invalid character 'é' in 'é'"),
        ("-x.y/a", "invalid registry host '-x.y'"),
        ("x:0/a", "invalid registry host 'x:0'"),
        ("x:99999/a", "invalid registry host 'x:99999'"),
        ("x:/a", "invalid registry host 'x:'"),
        ("a:", "the tag is empty"),
        ("a:.b", "invalid tag '.b'"),
        ("a:b c", "invalid tag 'b c'"),
        (&tag, "the tag is longer than 128 characters"),
        (&long, "longer than 255 characters"),
        ("http://a/b", "leave out http://"),
        (
            "a@sha256:12",
            "invalid digest 'sha256:12': expected sha256: and 64 lower-case hexadecimal digits",
        ),
        (
            "a@md5:12",
            "invalid digest 'md5:12': expected sha256: and 64 lower-case hexadecimal digits",
        ),
        (&digest_as_tag, &format!("write @sha256:{HEX} to ask for a digest")),
    ] {
        let expected = format!("! invalid image name '{text}': {reason}");
        assert_eq!(shown(text), crate::log::printable(&expected, &[]));
    }
}

#[test]
fn a_digest_wins_over_the_tag_and_names_the_stored_image() {
    let reference: Reference = format!("alpine:3.20@sha256:{HEX}").parse().unwrap();
    assert_eq!(reference.tag, format!("sha256-{HEX}"));
    assert_eq!(reference.to_string(), format!("index.docker.io/library/alpine@sha256:{HEX}"));
    assert_eq!(reference.unique_key(), format!("index.docker.io/library/alpine/sha256-{HEX}"));
    assert_eq!(reference.tag_label(), "<none>");
    assert_eq!(reference.full_label(), format!("alpine@sha256:{HEX}"));
    let Reference { server, namespace, image, tag, .. } = reference.clone();
    assert_eq!(Reference::from_parts(server, namespace, image, tag), reference);
    assert_eq!("alpine:3.20".parse::<Reference>().unwrap().tag_label(), "3.20");
}

#[test]
fn a_loaded_image_is_found_by_what_images_shows() {
    for (text, key) in [
        ("my_debian", "load/library/my_debian/latest"),
        ("quay.io/ns/image:1", "load/ns/image/1"),
        ("localhost:5000/image", "load/library/image/latest"),
        ("load/library/x", "load/library/x/latest"),
    ] {
        let loaded = text.parse::<Reference>().unwrap().for_load();
        assert_eq!(loaded.unique_key(), key);
        assert_eq!(loaded.full_label().parse::<Reference>().unwrap(), loaded);
    }
}

#[test]
fn every_label_leads_back_to_the_image() {
    for (text, label) in [
        ("alpine", "alpine"),
        ("user/image", "user/image"),
        ("docker.io/a/b/c", "a/b/c"),
        ("quay.io/ns/image", "quay.io/ns/image"),
        ("localhost:5000/image", "localhost:5000/image"),
    ] {
        let reference: Reference = text.parse().unwrap();
        assert_eq!(reference.repository_label(), label);
        assert_eq!(label.parse::<Reference>().unwrap(), reference);
    }
}
