//! Certificates of an authority instead of a secret.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use lb_userspace::config;
use lb_userspace::stream::{Identity, IdentityError};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose as Usage, IsCa, Issuer, KeyPair};

use crate::nodes::{Manager, Worker, secret, until, view};

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self {
            pem: params.self_signed(&key).unwrap().pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Writes a node's files and says where they are.
    fn node(&self, directory: &Path, usages: &[Usage], expired: bool) -> config::Stream {
        let mut params = CertificateParams::new(["any-name".into()]).unwrap();
        params.extended_key_usages = usages.to_vec();
        if expired {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let config = config::Stream {
            certificate: directory.join("node.crt"),
            key: directory.join("node.key"),
            ca: directory.join("ca.crt"),
            ..config::Stream::default()
        };
        fs::write(&config.certificate, certificate.pem()).unwrap();
        fs::write(&config.key, key.serialize_pem()).unwrap();
        fs::write(&config.ca, &self.pem).unwrap();
        config
    }

    fn identity(&self, usages: &[Usage]) -> Arc<Identity> {
        let directory = tempfile::tempdir().unwrap();
        Identity::load(&self.node(directory.path(), usages, false)).unwrap()
    }
}

const BOTH: [Usage; 2] = [Usage::ServerAuth, Usage::ClientAuth];

async fn refused(manager: Arc<Identity>, worker: Arc<Identity>, why: &str) {
    let manager = Manager::start("m1", manager, Some(view("a")));
    let worker = Worker::start("w1", worker, &[manager.address]);
    until(why, || worker.error().contains(why)).await;
    assert_eq!(worker.has(), None);
    assert_eq!(manager.server.status().reports, 0);
}

#[tokio::test]
async fn nodes_of_one_authority_know_each_other() {
    let authority = Authority::new();
    let manager = Manager::start("m1", authority.identity(&BOTH), Some(view("a")));
    let worker = Worker::start("w1", authority.identity(&[Usage::ClientAuth]), &[manager.address]);
    worker.gets("a").await;
    let reports = manager.server.reports();
    until("the report", || reports.borrow().contains_key("w1")).await;
}

#[tokio::test]
async fn others_are_refused_by_either_end() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let not_ours = "did not prove to be one of ours";
    refused(ours.identity(&BOTH), theirs.identity(&BOTH), not_ours).await;
    // Only workers' certificates: nobody may play the manager with one.
    refused(ours.identity(&[Usage::ClientAuth]), ours.identity(&BOTH), not_ours).await;
    refused(
        ours.identity(&BOTH),
        ours.identity(&[Usage::ServerAuth]),
        "refuses this node",
    )
    .await;
    refused(ours.identity(&BOTH), secret(crate::SECRET), not_ours).await;
    refused(secret(crate::SECRET), ours.identity(&BOTH), not_ours).await;

    let directory = tempfile::tempdir().unwrap();
    let expired = Identity::load(&ours.node(directory.path(), &BOTH, true)).unwrap();
    refused(ours.identity(&BOTH), expired.clone(), "refuses this node").await;
    refused(expired, ours.identity(&BOTH), not_ours).await;

    // The manager itself, not only what the worker thinks of it, refuses a stranger's certificate.
    let directory = tempfile::tempdir().unwrap();
    let mixed = theirs.node(directory.path(), &BOTH, false);
    fs::write(&mixed.ca, format!("{}{}", theirs.pem, ours.pem)).unwrap();
    let mixed = Identity::load(&mixed).unwrap();
    refused(ours.identity(&BOTH), mixed, "refuses this node").await;
}

#[tokio::test]
async fn renewed_certificates_are_used_without_a_restart() {
    let (old, new) = (Authority::new(), Authority::new());
    let directory = tempfile::tempdir().unwrap();
    let identity = Identity::load(&old.node(directory.path(), &BOTH, false)).unwrap();
    let manager = Manager::start("m1", identity, Some(view("a")));
    let worker = Worker::start("w1", old.identity(&BOTH), &[manager.address]);
    worker.gets("a").await;
    new.node(directory.path(), &BOTH, false);
    let later = Worker::start("w2", new.identity(&BOTH), &[manager.address]);
    later.gets("a").await;
    manager.publish("b");
    worker.gets("b").await;
}

#[test]
fn what_cannot_be_used_is_named_with_its_setting() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let good = authority.node(directory.path(), &BOTH, false);
    let error_of = |config: &config::Stream| Identity::load(config).unwrap_err().to_string();

    let nothing = Identity::load(&config::Stream::default()).unwrap_err();
    assert!(matches!(nothing, IdentityError::Off));
    assert!(nothing.to_string().contains("set stream.secret_file"), "{nothing}");

    let mut wrong = good.clone();
    wrong.certificate = "/nonexistent/node.crt".into();
    assert!(error_of(&wrong).starts_with("stream.certificate: /nonexistent/node.crt: No such file"));
    let mut wrong = good.clone();
    wrong.ca.clone_from(&good.key);
    assert!(error_of(&wrong).starts_with("stream.ca: "), "{}", error_of(&wrong));
    let mut wrong = good.clone();
    wrong.key.clone_from(&good.ca);
    assert!(error_of(&wrong).contains("node.key") || error_of(&wrong).contains("no private key in PEM"));
    let other = directory.path().join("other.key");
    fs::write(&other, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let mut wrong = good;
    wrong.key = other;
    assert!(
        error_of(&wrong).contains("does not fit stream.certificate"),
        "{}",
        error_of(&wrong)
    );
}
