//! Denials: the error codes by which AWS does not accept a caller at the moment. They pass once an operator or AWS repairs the cause,
//! and they say nothing about the request itself.

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
