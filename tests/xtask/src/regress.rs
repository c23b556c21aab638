//! PostgreSQL's own regression tests: their source, which no package installs, and what compiles their functions in C.

use crate::run::{shown, step, target_directory};
use crate::setup;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An unpacked source, for where Debian's packages are not.
const SOURCE_VARIABLE: &str = "POSTGRESQL_SOURCE";
/// Where Debian's and Ubuntu's archives are listed, in the form of today.
const ARCHIVES: [&str; 2] =
    ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list.d/ubuntu.sources"];
/// The same in the older form.
const OLD_ARCHIVES: &str = "/etc/apt/sources.list";
const SERVERS: &str = "/usr/lib/postgresql";

/// The folder of a source that fits the installed server, got from Debian's archive unless it is there.
pub(crate) fn source() -> Result<PathBuf, String> {
    if let Some(folder) = std::env::var_os(SOURCE_VARIABLE) {
        return Ok(PathBuf::from(folder));
    }
    let major = installed_major()?;
    let folder = target_directory().join("regress").join(format!("postgresql-{major}"));
    let unpacked = folder.join("tree");
    if unpacked.join("src/test/regress/parallel_schedule").exists() {
        println!("PostgreSQL's source: there");
        return Ok(unpacked);
    }
    fs::create_dir_all(folder.join("lists/partial"))
        .map_err(|error| format!("could not make {}: {error}", folder.display()))?;
    download(&folder, major)?;
    unpack(&folder, &unpacked)?;
    Ok(unpacked)
}

/// The headers of the installed server, of its very version: another one would take the server's programs with it.
pub(crate) fn install_headers() -> Result<(), String> {
    let major = installed_major()?;
    if Path::new(&format!("/usr/include/postgresql/{major}/server/postgres.h")).exists() {
        println!("PostgreSQL's headers: there");
        return Ok(());
    }
    let mut version = Command::new("dpkg-query");
    version.args(["--show", "--showformat=${Version}", &format!("postgresql-{major}")]);
    let version = output(&mut version)?;
    step("apt-get update", &mut setup::apt(&["update", "-qq"])?)?;
    setup::install_packages(&[&format!("postgresql-server-dev-{major}={version}")])
}

/// The newest version of Debian's folders, which is the one that the tests' clusters take.
fn installed_major() -> Result<u32, String> {
    let versions = fs::read_dir(SERVERS).into_iter().flatten().flatten();
    let majors = versions.filter(|version| version.path().join("bin/initdb").exists());
    let newest = majors.filter_map(|major| major.file_name().to_str()?.parse().ok()).max();
    newest.ok_or_else(|| {
        format!(
            "this needs Debian's PostgreSQL in {SERVERS}; elsewhere set {SOURCE_VARIABLE} to an unpacked source of the \
             server's version, and have its headers and pg_regress installed"
        )
    })
}

/// Gets the newest version that the archive has: its lists also name some that it does not hold.
fn download(folder: &Path, major: u32) -> Result<(), String> {
    let list = write_sources(folder)?;
    let apt = |program: &str| {
        let mut command = Command::new(program);
        command.current_dir(folder);
        command.arg("-o").arg(format!("Dir::Etc::SourceList={}", list.display()));
        command.arg("-o").arg(format!("Dir::Etc::SourceParts={}", folder.join("none").display()));
        command.arg("-o").arg(format!("Dir::State::Lists={}", folder.join("lists").display()));
        command.args(["-o", "APT::Sandbox::User=root"]);
        command
    };
    let package = format!("postgresql-{major}");
    step("lists of Debian's sources", apt("apt-get").args(["update", "-qq"]))?;
    let known = output(apt("apt-cache").args(["showsrc", "--only-source", &package]))?;
    let mut versions: Vec<&str> =
        known.lines().filter_map(|line| line.strip_prefix("Version: ")).collect();
    versions.dedup();
    for version in &versions {
        let mut get = apt("apt-get");
        get.args(["source", "--download-only", "-qq", &format!("{package}={version}")]);
        match step(&format!("PostgreSQL's source {version}"), &mut get) {
            Ok(()) => return Ok(()),
            Err(problem) => println!("{problem}"),
        }
    }
    let list = list.display();
    Err(format!("none of the versions {versions:?} of {package} could be got from {list}"))
}

/// The machine's own archives, asked for sources; nothing of the machine's configuration changes.
fn write_sources(folder: &Path) -> Result<PathBuf, String> {
    let (path, text) = match ARCHIVES.iter().find_map(|path| fs::read_to_string(path).ok()) {
        Some(text) => ("source.sources", as_sources(&text)),
        None => {
            let old = fs::read_to_string(OLD_ARCHIVES)
                .map_err(|error| format!("could not read {OLD_ARCHIVES}: {error}"))?;
            ("source.list", as_old_sources(&old))
        }
    };
    let path = folder.join(path);
    fs::write(&path, text)
        .map_err(|error| format!("could not write {}: {error}", path.display()))?;
    Ok(path)
}

fn as_sources(text: &str) -> String {
    let lines = text.lines().map(|line| match line.strip_prefix("Types:") {
        Some(_) => "Types: deb-src\n".to_owned(),
        None => format!("{line}\n"),
    });
    lines.collect()
}

fn as_old_sources(text: &str) -> String {
    let archives = text.lines().filter_map(|line| line.trim().strip_prefix("deb "));
    archives.map(|rest| format!("deb-src {rest}\n")).collect()
}

/// Of the source, only the tests.
fn unpack(folder: &Path, to: &Path) -> Result<(), String> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|file| file.path());
    let is_tarball = |path: &PathBuf| path.to_string_lossy().contains(".orig.tar.");
    let tarball = files.into_iter().find(is_tarball).ok_or("the source has no .orig.tar")?;
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).map_err(|error| format!("could not make {}: {error}", to.display()))?;
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(to).arg("-xf").arg(tarball);
    tar.args(["--strip-components=1", "--wildcards", "*/src/test/regress"]);
    step("unpacking the tests", &mut tar)
}

fn output(command: &mut Command) -> Result<String, String> {
    let shown = shown(command);
    let output = command.output().map_err(|error| format!("could not run {shown}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(format!("{shown} failed: {said}"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_of_programs_become_archives_of_sources() {
        let text = "Types: deb\nURIs: http://deb.debian.org/debian\nSuites: bookworm\n";
        assert_eq!(
            as_sources(text),
            "Types: deb-src\nURIs: http://deb.debian.org/debian\nSuites: bookworm\n"
        );
        let old =
            "# deb cdrom\ndeb http://deb.debian.org/debian bookworm main\ndeb-src http://x y z\n";
        assert_eq!(as_old_sources(old), "deb-src http://deb.debian.org/debian bookworm main\n");
    }
}
