//! A disk that is full, or that the system makes read-only after an error, under the daemon as it is shipped: a small file system of the
//! tests' own. Making one takes the superuser; where there is none, or no file systems may be mounted, this is left out unless
//! `REKINDLE_REQUIRE_SERVICES` says that it must be there.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value as Json, json};

use super::daemon::{Daemon, Place, eventually, recorded, text};

const RULES: &str = r#"
rekindle: 1
events:
  ordered: { name: "Ordered", active: true, properties: { order: { type: string, required: true } } }
policy:
  time: { zone: { last: UTC }, lateness: { start: 72h, correct: 7d }, week_start: mon }
  consent: { marketing: always, service: always, transactional: always }
  categories: { default: service }
  channels: { sms: { provider: recording } }
rules:
  - id: thanks
    name: Thank for each order
    owner: tests
    event: ordered
    key: event.order
    max_entries: 1000000
    steps: [{ id: thank, send: { template: hello, channels: [sms] } }]
"#;

const TEMPLATES: [(&str, &str); 2] =
    [("hello/template.yaml", "rekindle: 1\ntemplate: { purpose: order }"), ("hello/en/sms.liquid", "Thank you!")];

/// Room for the database, its log and a little.
const DISK_MB: u64 = 24;

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let ran = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    if ran.status.success() { Ok(()) } else { Err(format!("{program} {args:?}: {}", text(&ran))) }
}

/// A file system in a file, mounted.
struct Disk {
    image: PathBuf,
    at: PathBuf,
}

impl Disk {
    /// None where it cannot be had.
    fn make(place: &Place) -> Option<Disk> {
        let disk = Disk { image: place.path("disk.img"), at: place.path("disk") };
        fs::create_dir_all(&disk.at).expect("a directory");
        let file = fs::File::create(&disk.image).expect("a file");
        file.set_len(DISK_MB << 20).expect("its length");
        let made = run("mkfs.ext4", &["-q", "-F", &disk.image.display().to_string()]).and_then(|()| disk.mount());
        if let Err(reason) = made {
            let required = std::env::var("REKINDLE_REQUIRE_SERVICES").is_ok_and(|value| value == "1");
            assert!(!required, "no file system can be mounted, and REKINDLE_REQUIRE_SERVICES=1: {reason}");
            eprintln!("skipped: no file system can be mounted: {reason}");
            return None;
        }
        Some(disk)
    }

    fn mount(&self) -> Result<(), String> {
        run("mount", &["-o", "loop,errors=remount-ro", &self.image.display().to_string(), &self.at.display().to_string()])
    }

    fn unmount(&self) -> Result<(), String> {
        run("umount", &[&self.at.display().to_string()])
    }

    /// The database lies on it, and everything else does not.
    fn takes_the_database_of(&self, place: &Place) {
        std::os::unix::fs::symlink(self.at.join("shop.db"), place.database()).expect("a link");
    }

    /// Writes until nothing more goes in.
    fn fill(&self) {
        let mut ballast = fs::File::create(self.at.join("ballast")).expect("a file");
        let (block, mut size) = (vec![0_u8; 64 << 10], 64 << 10);
        while size > 0 {
            match ballast.write_all(&block[..size]).and_then(|()| ballast.sync_all()) {
                Ok(()) => {}
                Err(_) => size /= 2,
            }
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.at.join("ballast")).expect("removed");
    }

    /// The system finds an error on it: from now on it is read-only, under whoever has files open.
    fn fails(&self) {
        let mounts = fs::read_to_string("/proc/mounts").expect("what is mounted");
        let at = self.at.display().to_string();
        let device = mounts.lines().find(|line| line.split(' ').nth(1) == Some(&at)).and_then(|line| line.split(' ').next());
        let name = device.and_then(|device| Path::new(device).file_name()).and_then(|name| name.to_str()).expect("its device");
        assert!(name.starts_with("loop"), "{name} is not ours");
        fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "1").expect("an error");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // it may be unmounted already
        let _ = self.unmount();
    }
}

fn person(n: usize) -> Vec<Json> {
    vec![
        json!({ "type": "identify", "messageId": format!("i{n}"), "userId": format!("u{n}"), "traits": { "phone": "+441632960001" } }),
        json!({ "type": "track", "messageId": format!("o{n}"), "userId": format!("u{n}"), "event": "Ordered",
            "properties": { "order": n.to_string(), "note": "x".repeat(2_000) } }),
    ]
}

/// Sends one person after the other until one is refused; the status, and who was answered for.
fn sends_until_refused(daemon: &Daemon<'_>, key: &str, from: usize) -> (String, String, usize) {
    let head = format!("POST /v1/batch HTTP/1.1\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json");
    for n in from..from + 20_000 {
        let (status, body) = daemon.request(&head, &json!({ "batch": person(n) }).to_string());
        if status != "200" {
            return (status, body, n);
        }
    }
    panic!("nothing is ever refused");
}

#[test]
fn a_disk_that_is_full_and_one_that_turns_read_only_under_a_daemon_lose_nothing() {
    let place = Place::new(RULES, &TEMPLATES);
    let Some(disk) = Disk::make(&place) else { return };
    disk.takes_the_database_of(&place);
    let daemon = place.serve("first.log");
    let key = place.write_key();
    daemon.send(&key, &person(0));
    daemon.settles();

    disk.fill();
    let (status, body, full_at) = sends_until_refused(&daemon, &key, 1);
    assert_eq!(status, "503", "{body}");
    assert!(body.contains("disk_full"), "{body}");
    disk.make_room();
    // by itself: what was claimed as the disk was full is not forgotten
    daemon.send(&key, &person(full_at));
    eventually("everybody is thanked", || (recorded(&place, "sms") == full_at + 1).then_some(()));
    daemon.settles();

    disk.fails();
    let (status, body, broken_at) = sends_until_refused(&daemon, &key, full_at + 1);
    assert_eq!(status, "503", "{body}");
    eventually("it is not ready", || {
        let (status, body) = daemon.get("/readyz");
        let writing = serde_json::from_str::<Json>(&body).ok()?["parts"]["writing"].as_str()?.to_owned();
        (status == "503" && writing != "well").then_some(())
    });
    daemon.kill();
    disk.unmount().expect("nobody has it open");
    // mends what there is to mend, and says so by its exit code
    run("e2fsck", &["-fy", &disk.image.display().to_string()]).unwrap_or_else(|said| assert!(!said.contains("UNEXPECTED"), "{said}"));
    disk.mount().expect("mounted again");

    let daemon = place.serve("second.log");
    daemon.send(&key, &person(broken_at));
    daemon.settles();
    assert_eq!(daemon.terminate().0, Some(0));
    let answered: Vec<String> = (0..=broken_at).flat_map(|n| [format!("i{n}"), format!("o{n}")]).collect();
    fs::write(place.path("answered.txt"), answered.join("\n")).expect("written");
    let doctor = place.look(&["doctor", "--acknowledged", &place.path("answered.txt").display().to_string()]);
    assert!(doctor.status.success() && text(&doctor).contains("lost 0"), "{}", text(&doctor));
    assert_eq!(recorded(&place, "sms"), broken_at + 1, "each once");
}
