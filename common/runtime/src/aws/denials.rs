//! Denials: the codes in which AWS does not accept a caller just now. They pass when an operator or AWS mends it, and say nothing of what was asked for.

/// What the codes begin with.
const DENIALS: [&str; 13] = [
    "AccessDenied",
    "ExpiredToken",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSecurity",
    "InvalidSignature",
    "MissingAuthenticationToken",
    "NotAuthorized",
    "OptInRequired",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClient",
];

/// Whether `code` is about credentials, rights, signatures or a key of KMS.
pub fn is_denial(code: &str) -> bool {
    let names_kms = || code.to_ascii_lowercase().contains("kms") || code.contains("EncryptionCredentials");
    DENIALS.iter().any(|denial| code.starts_with(denial)) || names_kms()
}
