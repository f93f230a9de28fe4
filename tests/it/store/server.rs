//! A PostgreSQL server of the tests' own, started when the first of them asks, with a database for each. It ends with the process that
//! runs the tests.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{OnceLock, mpsc};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;

/// Debian keeps the server's programs out of the path, in a folder of each version.
const PROGRAMS: &str = "/usr/lib/postgresql";

pub struct Server {
    directory: TempDir,
    programs: PathBuf,
    port: u16,
}

/// The server that tests share; none where PostgreSQL is not installed, unless `REKINDLE_REQUIRE_SERVICES` says that it must be.
pub fn shared() -> Option<&'static Server> {
    static SHARED: OnceLock<Option<Server>> = OnceLock::new();
    SHARED.get_or_init(Server::start).as_ref()
}

impl Server {
    /// A server of its own, for who stops and starts it.
    pub fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            let required = std::env::var("REKINDLE_REQUIRE_SERVICES").is_ok_and(|value| value == "1");
            assert!(!required, "PostgreSQL is not installed (looked in {PROGRAMS} and on the path), and REKINDLE_REQUIRE_SERVICES=1");
            eprintln!("skipped: PostgreSQL is not installed");
            return None;
        };
        let directory = tempfile::Builder::new().prefix("rekindle-postgres-").tempdir().expect("a directory");
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
        let server = Server { directory, programs, port };
        server.prepare();
        server.run();
        Some(server)
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn prepare(&self) {
        std::fs::set_permissions(self.directory.path(), std::fs::Permissions::from_mode(0o777)).expect("permissions");
        let made = as_server(&self.programs.join("initdb"))
            .args(["--auth=trust", "--username=rekindle", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "-D"])
            .arg(self.data())
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// Starts it and waits until it answers.
    pub fn run(&self) {
        let mut command = as_server(&self.programs.join("postgres"));
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string(), "-k", ""]);
        for setting in ["listen_addresses=127.0.0.1", "fsync=off", "max_connections=400", "shared_buffers=64MB", "log_min_messages=fatal"] {
            command.args(["-c", setting]);
        }
        let log = std::fs::File::create(self.directory.path().join("log")).expect("a log");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        keep(command);
        let ready = Command::new(self.programs.join("pg_isready"))
            .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let mut answer = ready.expect("pg_isready runs");
        for _ in 0..600 {
            if answer.success() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
            let again =
                Command::new(self.programs.join("pg_isready")).args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]).status();
            answer = again.expect("pg_isready runs");
        }
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        panic!("the server does not answer: {log}");
    }

    /// Stops it the hard way: connections are cut, nothing is tidied.
    pub fn stop_immediately(&self) {
        let stopped = as_server(&self.programs.join("pg_ctl")).args(["stop", "-m", "immediate", "-w", "-D"]).arg(self.data()).output();
        let stopped = stopped.expect("pg_ctl runs");
        assert!(stopped.status.success(), "{}", String::from_utf8_lossy(&stopped.stderr));
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://rekindle@127.0.0.1:{}/{database}", self.port)
    }

    /// An empty database.
    pub async fn database(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut connection = PgConnection::connect(&self.url("postgres")).await.expect("the server answers");
        let create = format!("create database {name} template template0");
        sqlx::query(AssertSqlSafe(create)).execute(&mut connection).await.expect("created");
        self.url(&name)
    }
}

fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir(PROGRAMS).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path().join("bin"));
    let mut found: Vec<PathBuf> = versions.filter(|bin| bin.join("initdb").exists()).collect();
    found.sort();
    let on_path = std::env::var_os("PATH").and_then(|path| std::env::split_paths(&path).find(|bin| bin.join("initdb").exists()));
    found.pop().or(on_path)
}

/// The server refuses to run as the superuser: there its own account does.
fn as_server(program: &Path) -> Command {
    let is_superuser = std::fs::metadata("/proc/self").is_ok_and(|process| std::os::unix::fs::MetadataExt::uid(&process) == 0);
    let mut command = Command::new("setpriv");
    if is_superuser {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.args(["--pdeathsig", "KILL"]).arg(program).process_group(0).env("LC_ALL", "C.UTF-8");
    command
}

/// Starts it from a thread that lives as long as the process: the kernel ends it with the thread that started it.
fn keep(command: Command) -> u32 {
    static KEEPER: OnceLock<mpsc::Sender<(Command, mpsc::Sender<Child>)>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<(Command, mpsc::Sender<Child>)>();
        std::thread::spawn(move || {
            for (mut command, started) in inbox {
                let child = command.spawn().expect("the server starts");
                if started.send(child).is_err() {
                    return;
                }
            }
        });
        orders
    });
    let (started, answer) = mpsc::channel();
    keeper.send((command, started)).expect("the keeper lives");
    answer.recv().expect("it was started").id()
}
