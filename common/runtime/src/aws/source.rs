//! Source of credentials, in words: what the SDK marked them with.

use aws_credential_types::Credentials;
use aws_credential_types::credential_feature::AwsCredentialFeature as From;

/// Where `credentials` come from. The last mark counts, since a role is assumed with what another source gave; whatever a
/// profile names is marked as the profile's after that.
pub(super) fn of(credentials: &Credentials) -> &'static str {
    let marks = credentials.get_property::<Vec<From>>().map(Vec::as_slice).unwrap_or_default();
    let own = marks.iter().rev().find(|mark| **mark != From::CredentialsProfile);
    match own.or_else(|| marks.last()) {
        Some(From::CredentialsEnvVars) => "the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        Some(From::CredentialsProfile) => "keys in a profile",
        Some(From::CredentialsProcess | From::CredentialsProfileProcess) => "a profile's credential_process",
        Some(From::CredentialsSso | From::CredentialsProfileSso) => "a profile's SSO session",
        Some(From::CredentialsLogin | From::CredentialsProfileLogin) => "aws login",
        Some(From::CredentialsStsAssumeRole | From::CredentialsProfileSourceProfile) => {
            "a role that is assumed"
        }
        Some(From::CredentialsProfileStsWebIdToken | From::CredentialsEnvVarsStsWebIdToken) => {
            "a role by its web identity token"
        }
        Some(From::CredentialsHttp) => "the container's role",
        Some(From::CredentialsImds) => "the instance's role",
        Some(_) | None => "a source that does not tell its name",
    }
}
