//! Promises of the identity file.

use flotilla_storage::RealDisk;

use super::*;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

fn leave_log(data_dir: &Path) {
    let log = data_dir.join(crate::config::LOG_DIR);
    fs::create_dir_all(&log).unwrap();
    fs::write(log.join("0001.data"), "x").unwrap();
}

fn member(node: u64) -> Standing {
    Standing::Member {
        cluster: ClusterId([7; 16]),
        node: NodeId(node),
        shards: 4,
        plan: None,
    }
}

fn set(office: &PassportOffice, change: impl FnOnce(&mut Passport) + Send + 'static) {
    let change = |present: &Passport| {
        let mut next = present.clone();
        change(&mut next);
        Some(next)
    };
    runtime().block_on(office.update(change)).unwrap();
}

#[test]
fn an_identity_is_kept_and_every_start_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let office = PassportOffice::open(dir.path(), &RealDisk).unwrap();
    assert_eq!(office.passport().standing, Standing::Fresh);
    set(&office, |passport| passport.standing = member(3));
    let first = office.passport();
    let second = PassportOffice::open(dir.path(), &RealDisk)
        .unwrap()
        .passport();
    assert_eq!((first.incarnation, second.incarnation), (1, 2));
    assert_eq!(
        (second.disk, second.standing),
        (first.disk, first.standing.clone())
    );
}

#[test]
fn what_was_promised_to_a_plan_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let office = PassportOffice::open(dir.path(), &RealDisk).unwrap();
    let node = crate::forming::PlannedNode {
        disk: office.passport().disk,
        name: "n1".to_owned(),
        address: "h:1".to_owned(),
        zone: String::new(),
        feature_level_max: 1,
    };
    let plan = Plan::alone(ClusterId([1; 16]), node, 4, 3);
    let standing = Standing::Planned(plan);
    let promised = standing.clone();
    set(&office, |passport| passport.standing = promised);
    let again = PassportOffice::open(dir.path(), &RealDisk)
        .unwrap()
        .passport();
    assert_eq!(again.standing, standing);
}

#[test]
fn a_directory_of_the_first_format_is_taken_on() {
    let dir = tempfile::tempdir().unwrap();
    leave_log(dir.path());
    let text =
        "format 1\ncluster 00112233445566778899aabbccddeeff\nnode 1\nincarnation 3\nshards 4\n";
    fs::write(dir.path().join(FILE_NAME), text).unwrap();
    let first = PassportOffice::open(dir.path(), &RealDisk)
        .unwrap()
        .passport();
    let identity = first.identity().unwrap();
    assert_eq!((identity.node, identity.incarnation), (NodeId(1), 4));
    let second = PassportOffice::open(dir.path(), &RealDisk)
        .unwrap()
        .passport();
    assert_eq!((second.disk, second.has_log), (first.disk, true));
}

#[test]
fn a_newer_data_directory_is_refused_with_both_versions_named() {
    let dir = tempfile::tempdir().unwrap();
    PassportOffice::open(dir.path(), &RealDisk).unwrap();
    let path = dir.path().join(FILE_NAME);
    let newer = fs::read_to_string(&path)
        .unwrap()
        .replace("format 2", "format 9");
    fs::write(&path, newer).unwrap();
    let error = PassportOffice::open(dir.path(), &RealDisk)
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("format 9") && error.contains("up to 3"),
        "{error}"
    );
}

#[test]
fn a_directory_can_be_read_by_the_release_before_as_long_as_the_cluster_is_of_its_level() {
    let dir = tempfile::tempdir().unwrap();
    let office = PassportOffice::open(dir.path(), &RealDisk).unwrap();
    let path = dir.path().join(FILE_NAME);
    assert!(fs::read_to_string(&path).unwrap().starts_with("format 2\n"));
    set(&office, |passport| passport.feature_level = 2);
    assert!(fs::read_to_string(&path).unwrap().starts_with("format 3\n"));
    let again = PassportOffice::open(dir.path(), &RealDisk).unwrap();
    assert_eq!(again.passport().feature_level, 2);
}

#[test]
fn a_log_without_its_identity_is_not_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    leave_log(dir.path());
    let error = PassportOffice::open(dir.path(), &RealDisk)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains(FILE_NAME), "{error}");
}

#[test]
fn a_node_whose_log_was_taken_away_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let office = PassportOffice::open(dir.path(), &RealDisk).unwrap();
    set(&office, |passport| {
        passport.standing = member(2);
        passport.has_log = true;
    });
    let error = PassportOffice::open(dir.path(), &RealDisk)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("the log of this node is gone"), "{error}");
}

#[test]
fn damage_names_the_field() {
    for (key, bad) in [
        ("node", "node x"),
        ("cluster", "cluster zz"),
        ("shards", "shards 0"),
        ("disk", "disk 12"),
        ("plan", "plan x"),
    ] {
        let id = "00112233445566778899aabbccddeeff";
        let text = format!(
            "format 2\ndisk {id}\nincarnation 3\nlog true\ncluster {id}\nnode 1\nshards 4\nplan 01\n"
        );
        let damaged: String = text
            .lines()
            .map(|line| if line.starts_with(key) { bad } else { line })
            .filter(|line| key == "plan" || !line.starts_with("plan"))
            .map(|line| format!("{line}\n"))
            .collect();
        let complaint = Passport::parse(&damaged).unwrap_err();
        assert!(complaint.contains(key), "{complaint}");
    }
}
