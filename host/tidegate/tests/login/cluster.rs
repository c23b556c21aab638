//! A throw-away PostgreSQL with a role for each way to log in, shared by the tests and stopped when
//! they end.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

pub struct Cluster {
    pub dir: PathBuf,
    pub port: u16,
}

static CLUSTER: OnceLock<Cluster> = OnceLock::new();
static POSTMASTER: AtomicI32 = AtomicI32::new(0);

/// The first line that fits decides.
const HBA: &str = "\
local   all all                trust
host    all trusty   127.0.0.1/32 trust
host    all boss     127.0.0.1/32 trust
host    all mdee     127.0.0.1/32 md5
host    all plain    127.0.0.1/32 password
hostssl all certy    127.0.0.1/32 cert
hostssl all tlsonly  127.0.0.1/32 scram-sha-256
hostnossl all notls  127.0.0.1/32 scram-sha-256
host    all tlsonly  127.0.0.1/32 reject
host    all notls    127.0.0.1/32 reject
host    all all      127.0.0.1/32 scram-sha-256
";

const ROLES: &str = "\
CREATE ROLE admin SUPERUSER LOGIN PASSWORD 'adminpw';
CREATE ROLE boss SUPERUSER LOGIN;
CREATE ROLE alice LOGIN PASSWORD 'alicepw';
CREATE ROLE bob LOGIN PASSWORD 'böb''s \"Ⅸ\" password';
CREATE ROLE \"o'neil\\\" LOGIN PASSWORD 'quoted';
CREATE ROLE trusty LOGIN;
CREATE ROLE nopassword LOGIN;
CREATE ROLE plain LOGIN PASSWORD 'plainpw';
CREATE ROLE certy LOGIN;
CREATE ROLE tlsonly LOGIN PASSWORD 'tlspw';
CREATE ROLE notls LOGIN PASSWORD 'notlspw';
CREATE ROLE expired LOGIN PASSWORD 'expiredpw' VALID UNTIL '2001-01-01';
CREATE ROLE locked NOLOGIN PASSWORD 'lockedpw';
CREATE ROLE changing LOGIN PASSWORD 'before';
SET password_encryption = 'md5';
CREATE ROLE mdee LOGIN PASSWORD 'mdeepw';
";

impl Cluster {
    pub fn get() -> &'static Cluster {
        CLUSTER.get_or_init(Cluster::start)
    }

    #[allow(clippy::zombie_processes)] // `stop` waits for it
    fn start() -> Cluster {
        let dir = tempfile::Builder::new().prefix("tidegate-login-").tempdir().unwrap().keep();
        Certificates::write(&dir);
        let data = dir.join("data");
        if nix_is_root() {
            run(Command::new("chown").args(["-R", "postgres"]).arg(&dir));
        }
        run(postgres_program("initdb")
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N", "-D"])
            .arg(&data));
        std::fs::write(data.join("pg_hba.conf"), HBA).unwrap();
        let port = free_port();
        let setting = |name: &str, value: &str| ["-c".to_owned(), format!("{name}={value}")];
        let file = |name: &str| dir.join(name).display().to_string();
        let child = postgres_program("postgres")
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-k"])
            .arg(&dir)
            .args(setting("listen_addresses", "127.0.0.1"))
            .args(setting("fsync", "off"))
            .args(setting("ssl", "on"))
            .args(setting("ssl_cert_file", &file("server.crt")))
            .args(setting("ssl_key_file", &file("server.key")))
            .args(setting("ssl_ca_file", &file("ca.crt")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.join("log")).unwrap())
            .spawn()
            .unwrap();
        POSTMASTER.store(child.id() as i32, Ordering::SeqCst);
        // SAFETY: `stop` takes nothing and does not unwind.
        unsafe { libc::atexit(stop) };
        let cluster = Cluster { dir, port };
        cluster.await_ready();
        cluster.sql(ROLES);
        cluster
    }

    fn await_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.psql("SELECT 1").status().unwrap().success() {
            let log = || std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "PostgreSQL does not start: {}", log());
            std::thread::yield_now();
        }
    }

    /// Runs statements as the superuser, beside all that is tested.
    pub fn sql(&self, sql: &str) {
        let output = self.psql(sql).stderr(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn psql(&self, sql: &str) -> Command {
        let mut command = Command::new("psql");
        command.arg("-h").arg(&self.dir).args(["-p", &self.port.to_string()]);
        command.args(["-U", "postgres", "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", sql]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

extern "C" fn stop() {
    let Some(cluster) = CLUSTER.get() else { return };
    // SAFETY: a plain system call; the process is our own child and has not been waited for.
    unsafe { libc::kill(POSTMASTER.load(Ordering::SeqCst), libc::SIGQUIT) };
    unsafe { libc::waitpid(POSTMASTER.load(Ordering::SeqCst), std::ptr::null_mut(), 0) };
    let _ = std::fs::remove_dir_all(&cluster.dir);
}

fn nix_is_root() -> bool {
    // SAFETY: a plain system call.
    unsafe { libc::geteuid() == 0 }
}

fn postgres_program(name: &str) -> Command {
    let mut versions: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    versions.sort();
    let path = versions
        .iter()
        .rev()
        .map(|version| version.join("bin").join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from(name));
    if nix_is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(path);
        command.current_dir("/");
        return command;
    }
    Command::new(path)
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// One authority that signs everybody, and one that signs nobody we know.
struct Certificates;

impl Certificates {
    fn write(dir: &Path) {
        let ca = authority("Tidegate's test authority");
        write(dir, "ca.crt", &ca.1);
        write(dir, "other-ca.crt", &authority("A stranger").1);
        let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        signed(dir, "server", server, "localhost", &ca.0);
        let proxy = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        signed(dir, "proxy", proxy, "localhost", &ca.0);
        for user in ["certy", "alice", "trusty"] {
            signed(dir, user, CertificateParams::default(), user, &ca.0);
        }
        // Made out to a name in the old way, without alternative names, and signed by themselves.
        for (file, last_year) in [("selfsigned", 4096), ("expired", 2001)] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, "localhost");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.not_after = rcgen::date_time_ymd(last_year, 1, 1);
            write(dir, &format!("{file}.crt"), &params.self_signed(&key).unwrap().pem());
            write(dir, &format!("{file}.key"), &key.serialize_pem());
        }
    }
}

fn authority(name: &str) -> (Issuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

fn signed(
    dir: &Path,
    file: &str,
    mut params: CertificateParams,
    name: &str,
    issuer: &Issuer<'static, KeyPair>,
) {
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    write(dir, &format!("{file}.crt"), &certificate.pem());
    write(dir, &format!("{file}.key"), &key.serialize_pem());
}

fn write(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    // libpq and PostgreSQL refuse keys that others can read.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
