//! Says what an error of the TLS library means, in the words of this crate.
//!
//! Nothing here decides what happens to the connection.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, OtherError};

use crate::{limits, proto::TlsFailure};

/// The failure that an error of rustls stands for.
pub(crate) fn failure_of(error: &Error) -> TlsFailure {
    match error {
        Error::NoCertificatesPresented => TlsFailure::NoCertificate,
        Error::InvalidCertificate(why) => of_certificate(why),
        Error::InvalidCertRevocationList(why) => {
            TlsFailure::BadCertificate(text(format!("the CRL of its issuer: {why:?}")))
        }
        Error::AlertReceived(alert) => TlsFailure::Alert(alert_name(*alert)),
        // What begins no record of TLS: the far end speaks something else.
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => TlsFailure::Plaintext,
        error => TlsFailure::Protocol(text(error.to_string())),
    }
}

fn of_certificate(error: &CertificateError) -> TlsFailure {
    use CertificateError::{
        BadEncoding, BadSignature, Expired, ExpiredContext, ExpiredRevocationList,
        ExpiredRevocationListContext, InvalidPurpose, InvalidPurposeContext, NotValidYet,
        NotValidYetContext, Other, Revoked, UnknownIssuer, UnknownRevocationStatus,
    };
    let why = match error {
        Expired | ExpiredContext { .. } => return TlsFailure::Expired,
        NotValidYet | NotValidYetContext { .. } => return TlsFailure::NotYetValid,
        Revoked => return TlsFailure::Revoked,
        UnknownIssuer => return TlsFailure::UnknownIssuer,
        BadEncoding => "it is badly encoded".to_owned(),
        BadSignature => "a signature is wrong".to_owned(),
        UnknownRevocationStatus => {
            "no CRL of its issuer is configured, so that it may be revoked".to_owned()
        }
        ExpiredRevocationList | ExpiredRevocationListContext { .. } => {
            "the CRL of its issuer has expired".to_owned()
        }
        InvalidPurpose | InvalidPurposeContext { .. } => {
            "its extended key usage must name both serverAuth and clientAuth, or be absent"
                .to_owned()
        }
        Other(OtherError(why)) => why.to_string(),
        error => error.to_string(),
    };
    TlsFailure::BadCertificate(text(why))
}

/// The error of rustls for one of webpki, so that the far end gets the alert that fits it.
pub(super) fn from_webpki(error: webpki::Error) -> Error {
    use webpki::Error as Webpki;
    Error::InvalidCertificate(match error {
        Webpki::BadDer | Webpki::BadDerTime | Webpki::TrailingData(_) => {
            CertificateError::BadEncoding
        }
        Webpki::CertExpired { time, not_after } => {
            CertificateError::ExpiredContext { time, not_after }
        }
        Webpki::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        Webpki::InvalidCertValidity => CertificateError::Expired,
        Webpki::CertRevoked => CertificateError::Revoked,
        Webpki::UnknownIssuer => CertificateError::UnknownIssuer,
        Webpki::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        Webpki::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        Webpki::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        error => CertificateError::Other(OtherError(std::sync::Arc::new(error))),
    })
}

/// A text of bounded length. What a stranger can put into an error of rustls is escaped there.
fn text(mut text: String) -> String {
    let mut end = limits::TLS_TEXT_BYTES_MAX.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// The name of an alert in RFC 8446, section 6, or in the RFC that added or removed it.
fn alert_name(alert: AlertDescription) -> String {
    let number = u8::from(alert);
    let name = match number {
        0 => "close_notify",
        10 => "unexpected_message",
        20 => "bad_record_mac",
        21 => "decryption_failed",
        22 => "record_overflow",
        30 => "decompression_failure",
        40 => "handshake_failure",
        41 => "no_certificate",
        42 => "bad_certificate",
        43 => "unsupported_certificate",
        44 => "certificate_revoked",
        45 => "certificate_expired",
        46 => "certificate_unknown",
        47 => "illegal_parameter",
        48 => "unknown_ca",
        49 => "access_denied",
        50 => "decode_error",
        51 => "decrypt_error",
        60 => "export_restriction",
        70 => "protocol_version",
        71 => "insufficient_security",
        80 => "internal_error",
        86 => "inappropriate_fallback",
        90 => "user_canceled",
        100 => "no_renegotiation",
        109 => "missing_extension",
        110 => "unsupported_extension",
        111 => "certificate_unobtainable",
        112 => "unrecognized_name",
        113 => "bad_certificate_status_response",
        114 => "bad_certificate_hash_value",
        115 => "unknown_psk_identity",
        116 => "certificate_required",
        120 => "no_application_protocol",
        121 => "ech_required",
        number => return format!("{number}"),
    };
    name.to_owned()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use rustls::{CertRevocationListError, PeerIncompatible, PeerMisbehaved};

    use super::*;

    #[test]
    fn each_alert_has_its_name_in_the_rfc() {
        let mut named = 0;
        for number in 0..=u8::MAX {
            let alert = AlertDescription::from(number);
            let is_known = !matches!(alert, AlertDescription::Unknown(_));
            let name = alert_name(alert);
            let is_number = name == number.to_string();
            assert_eq!(is_number, !is_known, "{alert:?} is {name}");
            // Without the underscores it is the name in rustls, but for two.
            let plain = format!("{alert:?}").to_ascii_lowercase();
            let is_same = name.replace('_', "") == plain;
            let is_renamed = ["unrecognized_name", "ech_required"].contains(&name.as_str());
            assert!(is_same || is_renamed || is_number, "{alert:?} is {name}");
            named += usize::from(is_known);
        }
        assert_eq!(named, 35);
    }

    #[test]
    fn each_kind_of_error_has_a_reason_of_its_own() {
        let bad = |why: &str| TlsFailure::BadCertificate(why.to_owned());
        let protocol = |why: &str| TlsFailure::Protocol(why.to_owned());
        for (error, failure) in [
            (Error::NoCertificatesPresented, TlsFailure::NoCertificate),
            (CertificateError::Expired.into(), TlsFailure::Expired),
            (
                CertificateError::NotValidYet.into(),
                TlsFailure::NotYetValid,
            ),
            (CertificateError::Revoked.into(), TlsFailure::Revoked),
            (
                CertificateError::UnknownIssuer.into(),
                TlsFailure::UnknownIssuer,
            ),
            (
                CertificateError::BadEncoding.into(),
                bad("it is badly encoded"),
            ),
            (from_webpki(webpki::Error::CertRevoked), TlsFailure::Revoked),
            (
                from_webpki(webpki::Error::CaUsedAsEndEntity),
                bad("CaUsedAsEndEntity"),
            ),
            (
                CertRevocationListError::BadSignature.into(),
                bad("the CRL of its issuer: BadSignature"),
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
                protocol("peer is incompatible: NoCipherSuitesInCommon"),
            ),
            (
                Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedKxGroup),
                protocol("peer misbehaved: SelectedUnofferedKxGroup"),
            ),
            (
                Error::DecryptError,
                protocol("cannot decrypt peer's message"),
            ),
            (
                Error::General("é".repeat(1000)),
                protocol(&format!("unexpected error: {}", "é".repeat(119))),
            ),
        ] {
            assert_eq!(failure_of(&error), failure);
        }
    }
}
