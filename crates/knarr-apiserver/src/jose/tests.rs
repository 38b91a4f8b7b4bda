use serde_json::json;

use super::*;

/// RFC 7515, appendix A.3: ES256.
const A3: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
/// RFC 7515, appendix A.2: RS256.
const A2: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
/// RFC 7515, appendix A.4: ES512 over the text `Payload`, which is no JSON.
const A4_SIGNED: &str = "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA";
const A4_SIGNATURE: &str = "AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn";

fn p256() -> Value {
    json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"})
}

fn rsa() -> Value {
    json!({"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"})
}

fn p521() -> Value {
    json!({"kty": "EC", "crv": "P-521",
        "x": "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",
        "y": "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"})
}

fn keys() -> Vec<PublicKey> {
    [p256(), rsa(), p521()].iter().map(|k| PublicKey::from_jwk(k).unwrap()).collect()
}

#[test]
fn the_standards_own_examples_verify() {
    for token in [A2, A3] {
        let jws = Jws::parse(token).unwrap();
        assert_eq!(jws.verify(keys().iter(), &Algorithm::ALL), Ok(()));
        assert_eq!(jws.claims["iss"], "joe");
        assert_eq!(unproven_issuer(token).as_deref(), Some("joe"));
    }
    let signature = URL_SAFE_NO_PAD.decode(A4_SIGNATURE).unwrap();
    assert!(keys()[2].verify(Algorithm::ES512, A4_SIGNED.as_bytes(), &signature));
    assert!(!keys()[2].verify(Algorithm::ES512, b"another text", &signature));
}

#[test]
fn an_algorithm_that_is_not_allowed_is_refused() {
    let jws = Jws::parse(A3).unwrap();
    assert_eq!(jws.verify(keys().iter(), &[Algorithm::RS256]), Err(TokenFault::Algorithm("ES256".into())));
    let (_, rest) = A3.split_once('.').unwrap();
    for alg in ["none", "HS256", "None", ""] {
        let header = URL_SAFE_NO_PAD.encode(json!({ "alg": alg }).to_string());
        let token = format!("{header}.{rest}");
        let jws = Jws::parse(&token).unwrap();
        assert_eq!(jws.verify(keys().iter(), &Algorithm::ALL), Err(TokenFault::Algorithm(alg.into())));
    }
}

#[test]
fn a_key_is_used_for_its_own_algorithms_only() {
    let (_, rest) = A3.split_once('.').unwrap();
    for alg in ["RS256", "PS256", "ES384", "ES512"] {
        let header = URL_SAFE_NO_PAD.encode(json!({ "alg": alg }).to_string());
        let token = format!("{header}.{rest}");
        let jws = Jws::parse(&token).unwrap();
        assert_eq!(jws.verify(keys().iter(), &Algorithm::ALL), Err(TokenFault::Signature), "{alg}");
    }
}

#[test]
fn a_named_key_must_be_the_one_that_is_named() {
    let (_, rest) = A3.split_once('.').unwrap();
    let header = URL_SAFE_NO_PAD.encode(json!({"alg": "ES256", "kid": "other"}).to_string());
    let token = format!("{header}.{rest}");
    assert_eq!(Jws::parse(&token).unwrap().verify(keys().iter(), &Algorithm::ALL), Err(TokenFault::Signature));
}

#[test]
fn what_is_no_token_is_malformed() {
    let huge = "a".repeat(1 << 20);
    let crit = format!("{}.e30.", URL_SAFE_NO_PAD.encode(json!({"alg": "ES256", "crit": ["b64"]}).to_string()));
    let deep = format!("e30.{}.", URL_SAFE_NO_PAD.encode("[".repeat(10_000)));
    for token in ["", ".", "..", "a.b.c", "e30.e30.e30", "eyJhbGciOiJFUzI1NiJ9.bm90IGpzb24.", &huge, &crit, &deep] {
        assert_eq!(Jws::parse(token).err(), Some(TokenFault::Malformed), "{}", &token[..token.len().min(40)]);
        assert_eq!(unproven_issuer(token), None);
    }
}
