//! Signatures of tokens, made and checked by ring.
//!
//! The token library leaves cryptography to a provider. The ones it comes with
//! bring a second set of primitives; ring is in the program for TLS anyhow.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{self, Signer, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
    ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding, RsaKeyPair, UnparsedPublicKey, VerificationAlgorithm,
};
use ring::{hmac, rand};

/// Makes ring the provider, unless the process chose one before.
///
/// Any provider checks the same signatures, so whose it is does not matter.
pub(super) fn install() {
    static RING: CryptoProvider = CryptoProvider {
        signer_factory: signer,
        verifier_factory: verifier,
        key_utils: KeyUtils {
            rsa_pub_components_from_private_key: |_| Err(no_key_sets()),
            rsa_pub_components_from_public_key: |_| Err(no_key_sets()),
            ec_pub_components_from_private_key: |_, _| Err(no_key_sets()),
            ed_pub_components_from_private_key: |_, _| Err(no_key_sets()),
            compute_digest: |_, _| Err(no_key_sets()),
        },
    };
    RING.install_default().ok();
}

fn no_key_sets() -> Error {
    ErrorKind::Provider("key sets are not supported".to_owned()).into()
}

/// How ring goes about an algorithm.
enum Primitive {
    Hmac(hmac::Algorithm),
    Rsa(&'static dyn VerificationAlgorithm, &'static dyn RsaEncoding),
    Ecdsa(&'static dyn VerificationAlgorithm, &'static EcdsaSigningAlgorithm),
}

fn primitive(algorithm: Algorithm) -> Result<Primitive, Error> {
    Ok(match algorithm {
        Algorithm::HS256 => Primitive::Hmac(hmac::HMAC_SHA256),
        Algorithm::HS384 => Primitive::Hmac(hmac::HMAC_SHA384),
        Algorithm::HS512 => Primitive::Hmac(hmac::HMAC_SHA512),
        Algorithm::RS256 => Primitive::Rsa(&RSA_PKCS1_2048_8192_SHA256, &RSA_PKCS1_SHA256),
        Algorithm::RS384 => Primitive::Rsa(&RSA_PKCS1_2048_8192_SHA384, &RSA_PKCS1_SHA384),
        Algorithm::RS512 => Primitive::Rsa(&RSA_PKCS1_2048_8192_SHA512, &RSA_PKCS1_SHA512),
        Algorithm::PS256 => Primitive::Rsa(&RSA_PSS_2048_8192_SHA256, &RSA_PSS_SHA256),
        Algorithm::PS384 => Primitive::Rsa(&RSA_PSS_2048_8192_SHA384, &RSA_PSS_SHA384),
        Algorithm::PS512 => Primitive::Rsa(&RSA_PSS_2048_8192_SHA512, &RSA_PSS_SHA512),
        Algorithm::ES256 => {
            Primitive::Ecdsa(&ECDSA_P256_SHA256_FIXED, &ECDSA_P256_SHA256_FIXED_SIGNING)
        }
        Algorithm::ES384 => {
            Primitive::Ecdsa(&ECDSA_P384_SHA384_FIXED, &ECDSA_P384_SHA384_FIXED_SIGNING)
        }
        // The list may grow; no other algorithm can be configured.
        _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
    })
}

/// A key together with the algorithm it is used with.
struct Keyed<K> {
    algorithm: Algorithm,
    key: K,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the provider's signature")]
fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    // A public key taken for a shared secret would be one that everybody knows.
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidKeyFormat.into());
    }
    primitive(*algorithm)?;
    Ok(Box::new(Keyed { algorithm: *algorithm, key: key.clone() }))
}

impl Verifier<Vec<u8>> for Keyed<DecodingKey> {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let key = self.key.try_get_as_bytes().map_err(opaque)?;
        match primitive(self.algorithm).map_err(opaque)? {
            Primitive::Hmac(algorithm) => {
                hmac::verify(&hmac::Key::new(algorithm, key), message, signature)
            }
            Primitive::Rsa(algorithm, _) | Primitive::Ecdsa(algorithm, _) => {
                UnparsedPublicKey::new(algorithm, key).verify(message, signature)
            }
        }
        .map_err(opaque)
    }
}

impl JwtVerifier for Keyed<DecodingKey> {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the provider's signature")]
fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidKeyFormat.into());
    }
    primitive(*algorithm)?;
    Ok(Box::new(Keyed { algorithm: *algorithm, key: key.clone() }))
}

impl Signer<Vec<u8>> for Keyed<EncodingKey> {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        let (key, random) = (self.key.as_bytes(), SystemRandom::new());
        match primitive(self.algorithm).map_err(opaque)? {
            Primitive::Hmac(algorithm) => {
                Ok(hmac::sign(&hmac::Key::new(algorithm, key), message).as_ref().to_vec())
            }
            Primitive::Rsa(_, padding) => sign_rsa(key, padding, &random, message),
            Primitive::Ecdsa(_, algorithm) => {
                let pair = EcdsaKeyPair::from_pkcs8(algorithm, key, &random).map_err(opaque)?;
                Ok(pair.sign(&random, message).map_err(opaque)?.as_ref().to_vec())
            }
        }
    }
}

fn sign_rsa(
    key: &[u8],
    padding: &'static dyn RsaEncoding,
    random: &dyn rand::SecureRandom,
    message: &[u8],
) -> Result<Vec<u8>, signature::Error> {
    let pair = RsaKeyPair::from_der(key).map_err(opaque)?;
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(padding, random, message, &mut signature).map_err(opaque)?;
    Ok(signature)
}

impl JwtSigner for Keyed<EncodingKey> {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// Forgets the reason, as cryptography should.
fn opaque<E>(_reason: E) -> signature::Error {
    signature::Error::new()
}
