//! Drives the crate `opentdf` for our tests: one operation a run, what went wrong on stderr.

use opentdf::kas::KasClient;
use opentdf::kas_discovery::OpentdfConfiguration;
use opentdf::manifest::{IntegrityInformationExt, KeyAccessExt, Segment, TdfManifest};
use opentdf::{Tdf, TdfArchiveMemoryBuilder};
use opentdf_crypto::TdfEncryption;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::process::ExitCode;

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const UNSUPPORTED: u8 = 4;
const SEGMENT: usize = 2 * 1024 * 1024;

type Outcome = Result<(), Box<dyn std::error::Error>>;

struct Options {
    values: HashMap<String, String>,
    attributes: Vec<String>,
}

impl Options {
    fn read(mut words: impl Iterator<Item = String>) -> Option<Self> {
        let (mut values, mut attributes) = (HashMap::new(), Vec::new());
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--")?;
            match name {
                "any-kas" => continue,
                "attr" => attributes.push(words.next()?),
                _ => {
                    values.insert(name.to_owned(), words.next()?);
                }
            }
        }
        Some(Self { values, attributes })
    }

    fn get(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    /// What was asked for that this client does not have.
    fn missing(&self, operation: &str) -> Option<&'static str> {
        let rsa = |name| ["", "rsa:2048"].contains(&self.get(name));
        if !["encrypt", "decrypt"].contains(&operation) {
            return Some("the crate opens one file a request");
        }
        if !rsa("algorithm") && operation == "encrypt" {
            return Some("the crate wraps archives with RSA only");
        }
        if !rsa("session") {
            return Some("the crate has its answers sealed to RSA keys only");
        }
        if self.get("dpop") != "off" {
            return Some("the crate's proofs name a path for htu, which RFC 9449 does not allow");
        }
        if !self.get("metadata").is_empty() {
            return Some("the crate has no metadata");
        }
        None
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let operation = words.next().unwrap_or_default();
    let Some(options) = Options::read(words) else {
        eprintln!("usage: driver encrypt|decrypt OPTIONS");
        return ExitCode::from(USAGE);
    };
    if let Some(lack) = options.missing(&operation) {
        eprintln!("{lack}");
        return ExitCode::from(UNSUPPORTED);
    }
    let done = match operation.as_str() {
        "encrypt" => encrypt(&options).await,
        _ => decrypt(&options).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(FAILED)
        }
    }
}

async fn token(options: &Options) -> Result<String, Box<dyn std::error::Error>> {
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", options.get("client-id")),
        ("client_secret", options.get("client-secret")),
    ];
    let url = format!("{}/token", options.get("issuer"));
    let answer = reqwest::Client::new().post(url).form(&form).send().await?;
    let given: Value = answer.error_for_status()?.json().await?;
    Ok(given["access_token"].as_str().unwrap_or_default().to_owned())
}

async fn encrypt(options: &Options) -> Outcome {
    let server = options.get("server");
    let http = reqwest::Client::new();
    let url = format!("{server}/kas.AccessService/PublicKey");
    let key = opentdf::kas_key::fetch_kas_public_key_connect(&url, &http).await?;
    let plaintext = std::fs::read(options.get("in"))?;
    let encryption = TdfEncryption::new()?;
    let share = encryption.payload_key();
    let sealed = encryption.encrypt_with_segments(&plaintext, SEGMENT)?;

    let mut manifest = TdfManifest::new("0.payload".to_owned(), server.to_owned());
    let attributes: Vec<Value> =
        options.attributes.iter().map(|fqn| json!({"attribute": fqn})).collect();
    let policy = json!({
        "uuid": uuid::Uuid::new_v4().to_string(),
        "body": {"dataAttributes": attributes, "dissem": []},
    })
    .to_string();
    manifest.set_policy_raw(&policy);
    let information = &mut manifest.encryption_information;
    information.method.algorithm = "AES-256-GCM".to_owned();
    information.method.iv = String::new();
    let access = &mut information.key_access[0];
    access.generate_policy_binding_raw(&policy, share)?;
    access.wrapped_key = opentdf::wrap_key_with_rsa_oaep(share, &key.public_key)?;
    access.kid = Some(key.kid);
    let integrity = &mut information.integrity_information;
    integrity.segment_size_default = SEGMENT as u64;
    integrity.encrypted_segment_size_default = (SEGMENT + 28) as u64;
    integrity.segments.extend(sealed.segment_info.iter().map(|found| Segment {
        hash: found.hash.clone(),
        segment_size: Some(found.plaintext_size),
        encrypted_segment_size: Some(found.encrypted_size),
    }));
    integrity.generate_root_signature(&sealed.gmac_tags, share)?;

    let mut builder = TdfArchiveMemoryBuilder::new();
    builder.add_entry_with_segments(&manifest, &sealed.segments, 0)?;
    std::fs::write(options.get("out"), builder.finish()?)?;
    Ok(())
}

async fn decrypt(options: &Options) -> Outcome {
    let configuration = OpentdfConfiguration::for_kas_connect(options.get("server"));
    let client = KasClient::new(&configuration, token(options).await?)?;
    let sealed = std::fs::read(options.get("in"))?;
    Tdf::decrypt(sealed).kas_client(client).to_file(options.get("out")).await?;
    Ok(())
}
