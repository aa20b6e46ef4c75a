//! Tokens that a private key signs (ES256), of which a server knows the public half only.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, SigningKey};

/// Of each of the two numbers that make a signature.
const NUMBER_BYTES: usize = 32;

/// A key on the curve P-256.
pub struct Signer {
    key: KeyPair,
}

impl Signer {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key can be made");
        Self { key }
    }

    /// PEM.
    pub fn public_key(&self) -> String {
        self.key.public_key_pem()
    }

    /// That says this, as JSON.
    pub fn token(&self, claims: &str) -> String {
        let [head, claims] =
            [r#"{"alg":"ES256"}"#, claims].map(|text| URL_SAFE_NO_PAD.encode(text));
        let text = format!("{head}.{claims}");
        let signed = self.key.sign(text.as_bytes()).expect("a key that signs");
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(numbers(&signed)))
    }
}

impl Default for Signer {
    fn default() -> Self {
        Self::new()
    }
}

/// The two numbers of a signature one after the other, as tokens have them, of the sequence that they are in DER.
fn numbers(der: &[u8]) -> Vec<u8> {
    let mut numbers = Vec::with_capacity(2 * NUMBER_BYTES);
    // The tag and the length of the sequence.
    let mut rest = &der[2..];
    for _ in 0..2 {
        let length = usize::from(rest[1]);
        let (number, after) = rest[2..].split_at(length);
        // Without the zero that says that it is not negative, and with those that it leaves out.
        let digits = number.strip_prefix(&[0]).unwrap_or(number);
        numbers.resize(numbers.len() + NUMBER_BYTES - digits.len(), 0);
        numbers.extend_from_slice(digits);
        rest = after;
    }
    numbers
}
