//! What form of answer a client accepts.

use tripod_schema::Failure;
use tripod_schema::failure::Result;

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

/// As what objects are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// As they are.
    Whole,
    /// `Table` of meta.k8s.io.
    Table,
    /// `PartialObjectMetadata`.
    Partial,
    /// `APIGroupDiscoveryList` of this version.
    Discovery(&'static str),
}

/// The form that the client likes best among those there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accept {
    pub(crate) encoding: Encoding,
    pub(crate) shape: Shape,
}

impl Accept {
    pub(crate) const JSON: Self = Self {
        encoding: Encoding::Json,
        shape: Shape::Whole,
    };
}

/// Reads the header `Accept`.
///
/// # Errors
/// 406 when nothing there is would do.
pub(crate) fn accept(header: Option<&str>, protobuf: bool) -> Result<Accept> {
    let Some(header) = header.filter(|h| !h.trim().is_empty()) else {
        return Ok(Accept::JSON);
    };
    let mut ranges: Vec<(f32, Accept)> = header
        .split(',')
        .filter_map(|range| one(range, protobuf))
        .collect();
    // Stable: of equal ones the first.
    ranges.sort_by(|a, b| b.0.total_cmp(&a.0));
    match ranges.first() {
        Some((_, accept)) => Ok(*accept),
        None => Err(Failure::new(
            406,
            "NotAcceptable",
            "only the following media types are accepted: application/json, application/yaml, \
             application/vnd.kubernetes.protobuf",
        )),
    }
}

fn one(range: &str, protobuf: bool) -> Option<(f32, Accept)> {
    let mut parts = range.split(';').map(str::trim);
    let encoding = match parts.next()? {
        "application/json" | "*/*" | "application/*" => Encoding::Json,
        "application/yaml" => Encoding::Yaml,
        "application/vnd.kubernetes.protobuf" if protobuf => Encoding::Protobuf,
        _ => return None,
    };
    let (mut quality, mut kind, mut group, mut version) = (1.0, "", "", "");
    for part in parts {
        match part.split_once('=') {
            Some(("q", q)) => quality = q.parse().ok()?,
            Some(("as", a)) => kind = a,
            Some(("g", g)) => group = g,
            Some(("v", v)) => version = v,
            // `stream=watch`, `charset=…`.
            _ => {}
        }
    }
    let shape = match (kind, group, version) {
        ("", _, _) => Shape::Whole,
        ("Table", "meta.k8s.io", "v1" | "v1beta1") => Shape::Table,
        ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1" | "v1beta1") => {
            Shape::Partial
        }
        ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => Shape::Discovery("v2"),
        ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2beta1") => Shape::Discovery("v2beta1"),
        _ => return None,
    };
    // Tables and metadata alone are written as JSON.
    if encoding == Encoding::Protobuf && shape != Shape::Whole {
        return None;
    }
    Some((quality, Accept { encoding, shape }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let of = |h| accept(Some(h), true).unwrap();
        assert_eq!(of("application/json"), Accept::JSON);
        assert_eq!(
            of("application/json;as=Table;v=v1;g=meta.k8s.io,application/json").shape,
            Shape::Table
        );
        assert_eq!(
            of("application/vnd.kubernetes.protobuf,application/json").encoding,
            Encoding::Protobuf
        );
        assert_eq!(
            of("application/yaml;q=0.5, application/json;q=0.9").encoding,
            Encoding::Json
        );
        assert_eq!(of("text/html, */*;q=0.1"), Accept::JSON);
        assert_eq!(
            of("application/json;as=Nope;v=v1;g=meta.k8s.io, application/json"),
            Accept::JSON
        );
        assert_eq!(accept(Some("text/html"), true).unwrap_err().code, 406);
        assert_eq!(accept(None, true).unwrap(), Accept::JSON);
    }
}
