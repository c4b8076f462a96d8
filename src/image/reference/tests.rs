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
        ("", "a part of it is empty"),
        ("/etc/passwd", "a part of it is empty"),
        ("a//b", "a part of it is empty"),
        ("a/", "a part of it is empty"),
        ("../../etc", "'..' is no server's name"),
        ("./a", "'.' is no server's name"),
        ("a/../b", "'..' must be words joined by '.', '_', '__' or '-'"),
        ("a/.b", "'.b' must be words joined by '.', '_', '__' or '-'"),
        ("a..b", "'a..b' must be words joined by '.', '_', '__' or '-'"),
        ("a___b", "'a___b' must be words joined by '.', '_', '__' or '-'"),
        ("a-", "'a-' must be words joined by '.', '_', '__' or '-'"),
        ("Alpine", "'Alpine' must be in lower case"),
        ("my image", "' ' cannot stand in 'my image'"),
        ("a\0b", "'\\0' cannot stand in 'a\0b'"),
        ("é", "'é' cannot stand in 'é'"),
        ("-x.y/a", "'-x.y' is no server's name"),
        ("x:0/a", "'x:0' is no server's name"),
        ("x:99999/a", "'x:99999' is no server's name"),
        ("x:/a", "'x:' is no server's name"),
        ("a:", "the tag is empty"),
        ("a:.b", "'.b' is no tag"),
        ("a:b c", "'b c' is no tag"),
        (&tag, "the tag is longer than 128 characters"),
        (&long, "longer than 255 characters"),
        ("http://a/b", "leave out http://"),
        ("a@sha256:12", "a sha256 digest is 64 digits of 0-9 and a-f"),
        ("a@md5:12", "'md5:12' is no digest: only sha256:<64 digits> is known"),
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
    assert_eq!(tag_label(&reference.tag), "<none>");
    assert_eq!(tag_label("3.20"), "3.20");
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
        let label = repository_label(&loaded.server, &loaded.namespace, &loaded.image);
        assert_eq!(format!("{label}:{}", loaded.tag).parse::<Reference>().unwrap(), loaded);
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
        let shown = repository_label(&reference.server, &reference.namespace, &reference.image);
        assert_eq!(shown, label);
        assert_eq!(shown.parse::<Reference>().unwrap(), reference);
    }
}
