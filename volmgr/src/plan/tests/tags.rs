//! Tests of tags.

use super::*;

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn tags_come_and_go() {
    let vg = create(&group(&[10]), &VolumeRequest::new("web", 8 * MIB)).unwrap();
    let tagged = tag_volume(&vg, "web", &words(&["prod", "host=a/b"]), &[]).unwrap();
    let tagged = tag_volume(
        &tagged,
        "web",
        &words(&["prod", "new"]),
        &words(&["host=a/b"]),
    )
    .unwrap();
    let tags: Vec<&str> = tagged.volumes[0].tags.iter().map(String::as_str).collect();
    assert_eq!(tags, ["new", "prod"]);
    let tagged = tag_group(&tagged, &words(&["rack4"]), &[]).unwrap();
    assert!(tagged.tags.contains("rack4"));
    assert_eq!(check(&tagged), []);
    let bare = tag_group(&tagged, &[], &words(&["rack4", "never-there"])).unwrap();
    assert_eq!(
        tag_volume(&bare, "web", &[], &words(&["new", "prod"])).unwrap(),
        vg
    );
}

#[test]
fn bad_tags_are_refused() {
    let vg = create(&group(&[10]), &VolumeRequest::new("web", 8 * MIB)).unwrap();
    let error = tag_volume(&vg, "web", &words(&["a b"]), &[]).unwrap_err();
    assert!(matches!(error, PlanError::Name { .. }));
    let many: Vec<String> = (0..65).map(|n| format!("t{n}")).collect();
    let error = tag_group(&vg, &many, &[]).unwrap_err();
    assert!(matches!(error, PlanError::Value { value: 65, .. }));
    let mut bent = vg.clone();
    bent.volumes.at_mut(0).tags.insert("@x".into());
    assert_eq!(check(&bent).len(), 1);
    assert_eq!(crate::model::check_change(&vg, &bent).len(), 1);
}
