//! The default policies are short, tested, and depend on the SDK alone: what anybody's policy can be.

use crate::tree::File;

/// Lines of a policy that are not blank.
const PLUGIN_LINES_MAX: usize = 70;

pub fn check(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.path.starts_with("plugins/")) {
        if file.path.ends_with("/src/lib.rs") {
            let lines = file.text.lines().filter(|line| !line.trim().is_empty()).count();
            if lines > PLUGIN_LINES_MAX {
                complaints.push(format!(
                    "{} has {lines} lines, more than {PLUGIN_LINES_MAX}: what others would need as well belongs \
                     into the SDK",
                    file.path
                ));
            }
            let tests = file.path.replace("/lib.rs", "/tests.rs");
            if !files.iter().any(|other| other.path == tests) {
                complaints.push(format!("{}: a policy without {tests}", file.path));
            }
        }
        if file.path.ends_with("/Cargo.toml") && file.path != "plugins/Cargo.toml" {
            complaints.extend(foreign(&file.text).map(|name| {
                format!("{}: depends on {name}: a policy depends on the SDK alone", file.path)
            }));
        }
    }
    complaints
}

/// The names under `[dependencies]` that are not the SDK.
fn foreign(manifest: &str) -> impl Iterator<Item = &str> {
    let section = manifest.lines().skip_while(|line| line.trim() != "[dependencies]").skip(1);
    let entries = section.take_while(|line| !line.starts_with('['));
    let names = entries.filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    names.filter(|line| !line.starts_with("tidegate-sdk"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_short_and_its_dependencies_are_one() {
        let manifest =
            "[dependencies]\ntidegate-sdk = { path = \"..\" }\nrand = \"1\"\n\n[lib]\nx = 1\n";
        assert_eq!(foreign(manifest).collect::<Vec<_>>(), ["rand = \"1\""]);
        let files = [
            File::new("plugins/a/src/lib.rs", &"x\n\n".repeat(PLUGIN_LINES_MAX + 1)),
            File::new("plugins/a/src/tests.rs", ""),
            File::new("plugins/b/src/lib.rs", &"x\n\n".repeat(PLUGIN_LINES_MAX)),
        ];
        let complaints = check(&files);
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(complaints[0].contains("71 lines") && complaints[1].contains("without"));
    }
}
