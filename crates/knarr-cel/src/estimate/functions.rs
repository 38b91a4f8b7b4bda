//! What calls of each function cost.

use super::sizes::{CallEstimate, CostEstimate, SizeEstimate, scale};
use super::{Estimator, ONE};
use crate::ast::{Expr, Kind, Literal};
use crate::cost::{AUTHORIZATION_CHECK, LIST_CREATION, REGEX_LENGTH, STRING_TRAVERSAL, STRUCT_CREATION};
use crate::functions::Overload;
use crate::types::Type;

/// The longest pattern of a named format.
const FORMAT_PATTERN: f64 = 128.0;

impl Estimator<'_> {
    /// What a call costs beside its arguments.
    pub(super) fn function_cost(
        &mut self,
        function: &str,
        overload: &Overload,
        target: Option<&Expr>,
        arguments: &[Expr],
    ) -> CallEstimate {
        let traversal = |size: SizeEstimate| size.times_factor(STRING_TRAVERSAL);
        // What is traversed: the receiver of a method, the first argument of a function.
        let subject = target.or(arguments.first());
        let size = subject.map_or(SizeEstimate::UNKNOWN, |e| self.size_or_unknown(e));
        let argument = |estimator: &mut Self, at: usize| {
            arguments.get(at).map_or(SizeEstimate::UNKNOWN, |e| estimator.size_or_unknown(e))
        };
        match function {
            "check" => CallEstimate::of(CostEstimate::exactly(AUTHORIZATION_CHECK)),
            "fieldSelector" | "labelSelector" => CallEstimate::of(selector(argument(self, 0))),
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => self.list_traversal(target),
            "url" | "jsonpatch.escapeKey" | "lowerAscii" | "upperAscii" | "substring" | "trim" => {
                CallEstimate::sized(traversal(size), size)
            }
            "replace" => {
                let result = replaced(size, argument(self, 0), argument(self, 1));
                CallEstimate::sized(size.times_factor(2.0 * STRING_TRAVERSAL), result)
            }
            "split" => {
                let limit = int_literal(arguments.get(1)).map_or(size.max, |limit| limit as u64);
                let result = SizeEstimate { min: 0, max: limit };
                CallEstimate::sized(size.times_factor(2.0 * STRING_TRAVERSAL), result)
            }
            "join" => self.join(target, arguments.first()),
            "find" | "findAll" => {
                let cost = pattern(size, argument(self, 0));
                CallEstimate::sized(cost, SizeEstimate { min: 0, max: size.max })
            }
            "matches" if target.is_some() => CallEstimate::of(pattern(size, argument(self, 0))),
            "ip" if matches!(overload.parameters[0], Type::Opaque(..)) => CallEstimate::of(ONE),
            "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver" | "format" => {
                CallEstimate::of(traversal(size))
            }
            "ip.isCanonical" => CallEstimate::of(size.times_factor(2.0 * STRING_TRAVERSAL)),
            "containsIP" | "containsCIDR" => {
                let parsed = matches!(overload.parameters[1], Type::String).then(|| argument(self, 0));
                CallEstimate::of(network(function, parsed))
            }
            "validate" => {
                let cost = traversal(argument(self, 0)).times_factor(FORMAT_PATTERN * REGEX_LENGTH);
                CallEstimate::of(cost)
            }
            "sets.contains" | "sets.intersects" => CallEstimate::of(ONE.plus(pairs(size, argument(self, 1), 1.0))),
            "sets.equivalent" => CallEstimate::of(ONE.plus(pairs(size, argument(self, 1), 2.0))),
            "slice" => {
                let start = int_literal(arguments.first()).unwrap_or(0) as u64;
                let end = int_literal(arguments.get(1)).map_or(size.max, |end| end as u64);
                allocating(1.0, SizeEstimate::exactly(end.saturating_sub(start)))
            }
            "lists.range" => {
                let length = int_literal(arguments.first()).map_or(u64::MAX, |length| length as u64);
                allocating(1.0, SizeEstimate::exactly(length))
            }
            "reverse" => allocating(1.0, size),
            "flatten" => {
                let depth = match arguments.first() {
                    None => 1,
                    depth => int_literal(depth).map_or(u64::MAX, |depth| depth as u64),
                };
                allocating(depth as f64, size)
            }
            "distinct" => allocating(2.0, size.times(size)),
            "sort" => allocating(comparison_factor(&overload.parameters[0]), size.times(size)),
            "@sortByAssociatedKeys" => {
                let keys = argument(self, 0);
                allocating(comparison_factor(&overload.parameters[1]), keys.times(keys))
            }
            "startsWith" | "endsWith" => CallEstimate::of(traversal(argument(self, 0))),
            "strings.quote" => {
                let result =
                    SizeEstimate { min: size.min.saturating_add(2), max: size.max.saturating_mul(2).saturating_add(2) };
                CallEstimate::sized(traversal(size), result)
            }
            "bytes" if matches!(overload.parameters[0], Type::String) => {
                let result = SizeEstimate { min: size.min, max: size.max.saturating_mul(4) };
                CallEstimate::sized(traversal(size), result)
            }
            "string" if matches!(overload.parameters[0], Type::Bytes) => {
                CallEstimate::sized(traversal(size), SizeEstimate { min: size.min / 4, max: size.max })
            }
            "contains" => CallEstimate::of(traversal(size).times(traversal(argument(self, 0)))),
            _ => self.operator_cost(function, overload, arguments),
        }
    }

    fn operator_cost(&mut self, function: &str, overload: &Overload, arguments: &[Expr]) -> CallEstimate {
        let [left, right] = arguments else { return CallEstimate::of(ONE) };
        let texts = matches!(overload.parameters[0], Type::String | Type::Bytes);
        match function {
            "@in" if matches!(overload.parameters[1], Type::List(_)) => {
                CallEstimate::of(self.size_or_unknown(right).times_factor(1.0))
            }
            "_+_" if texts => {
                let size = self.size_or_unknown(left).plus(self.size_or_unknown(right));
                CallEstimate::sized(size.times_factor(STRING_TRAVERSAL), size)
            }
            "_+_" if matches!(overload.parameters[0], Type::List(_)) => {
                CallEstimate::sized(ONE, self.size_or_unknown(left).plus(self.size_or_unknown(right)))
            }
            "_==_" if constant_comparison(self.type_of(left), self.type_of(right)) => CallEstimate::of(ONE),
            "_==_" | "_!=_" => self.comparison(left, right),
            "_<_" | "_<=_" | "_>_" | "_>=_" if texts => self.comparison(left, right),
            _ => CallEstimate::of(ONE),
        }
    }

    fn comparison(&mut self, left: &Expr, right: &Expr) -> CallEstimate {
        let max = self.size_or_unknown(left).max.min(self.size_or_unknown(right).max);
        let cost = CostEstimate { min: u64::from(max > 0), max };
        CallEstimate::of(cost.times_factor(STRING_TRAVERSAL))
    }

    /// One unit for each element, and the traversal of the texts among them.
    fn list_traversal(&mut self, target: Option<&Expr>) -> CallEstimate {
        let Some(target) = target else { return CallEstimate::of(ONE) };
        let size = self.size_or_unknown(target);
        let Type::List(element) = self.type_of(target) else {
            return CallEstimate::of(size.times_factor(STRING_TRAVERSAL));
        };
        let texts = matches!(**element, Type::String | Type::Bytes);
        let mut cost = ONE;
        if texts {
            cost = cost.plus(self.element_size(target).times_factor(STRING_TRAVERSAL));
        }
        CallEstimate::of(size.times_cost(cost))
    }

    /// The size of the elements of a list as its schema declares it.
    fn element_size(&mut self, list: &Expr) -> SizeEstimate {
        let path = self.path(list);
        if path.is_empty() {
            return SizeEstimate::UNKNOWN;
        }
        self.declared_size(&self.path_with(list, "@items")).unwrap_or(SizeEstimate::UNKNOWN)
    }

    fn join(&mut self, target: Option<&Expr>, separator: Option<&Expr>) -> CallEstimate {
        let Some(target) = target else { return CallEstimate::of(ONE) };
        let items = self.size_or_unknown(target);
        let mut size = match self.type_of(target) {
            Type::List(_) => items.times(self.element_size(target)),
            _ => SizeEstimate::default(),
        };
        if let Some(separator) = separator {
            let gaps = SizeEstimate { min: items.min.saturating_sub(1), max: items.max.saturating_sub(1) };
            size = size.plus(self.size_or_unknown(separator).times(gaps));
        }
        CallEstimate::sized(size.times_factor(STRING_TRAVERSAL), size)
    }
}

fn int_literal(expr: Option<&Expr>) -> Option<i64> {
    match &expr?.kind {
        Kind::Literal(Literal::Int(value)) => Some((*value).max(0)),
        _ => None,
    }
}

fn pattern(text: SizeEstimate, regex: SizeEstimate) -> CostEstimate {
    let text = text.plus(SizeEstimate::exactly(1)).times_factor(STRING_TRAVERSAL);
    text.times(regex.times_factor(REGEX_LENGTH))
}

fn selector(length: SizeEstimate) -> CostEstimate {
    let requirements = length.times_factor(0.5).times_factor((LIST_CREATION + STRUCT_CREATION) as f64);
    CostEstimate::exactly(LIST_CREATION).plus(length.times_factor(STRING_TRAVERSAL)).plus(requirements)
}

/// Addresses have 4 or 16 bytes.
fn network(function: &str, parsed: Option<SizeEstimate>) -> CostEstimate {
    let address = SizeEstimate { min: 4, max: 16 };
    let mut cost = address.plus(address).times_factor(STRING_TRAVERSAL);
    if function == "containsCIDR" {
        cost = cost.plus(address.times_factor(STRING_TRAVERSAL)).plus(ONE);
    }
    match parsed {
        Some(text) => cost.plus(text.times_factor(STRING_TRAVERSAL)),
        None => cost,
    }
}

fn pairs(a: SizeEstimate, b: SizeEstimate, factor: f64) -> CostEstimate {
    a.times(b).times_factor(factor)
}

fn allocating(factor: f64, size: SizeEstimate) -> CallEstimate {
    let cost = size.times_factor(factor).plus(ONE).plus(CostEstimate::exactly(LIST_CREATION));
    CallEstimate::sized(cost, size)
}

fn comparison_factor(list: &Type) -> f64 {
    match list {
        Type::List(element) if matches!(**element, Type::String | Type::Bytes) => 2.0 + STRING_TRAVERSAL,
        _ => 2.0,
    }
}

/// Kubernetes' own types that compare in one step.
fn constant_comparison(left: &Type, right: &Type) -> bool {
    let name = |given: &Type| match given {
        Type::Opaque(name, None) => Some(name.clone()),
        Type::Struct(declared) => {
            Some(declared.name.clone()).filter(|n| n.starts_with("kubernetes.") && **n != *"kubernetes.URL")
        }
        _ => None,
    };
    matches!((name(left), name(right)), (Some(a), Some(b)) if a == b)
}

/// The size of a text after a replacement.
fn replaced(text: SizeEstimate, old: SizeEstimate, new: SizeEstimate) -> SizeEstimate {
    let (mut count, mut kept) = (SizeEstimate::default(), SizeEstimate::default());
    if old.min == 0 {
        count.max = text.max.saturating_add(1);
        kept.max = text.max;
    } else if new.max <= old.min {
        kept.max = text.max;
    } else {
        count.max = scale(text.max, 1.0 / old.min as f64);
    }
    if old.max == 0 {
        count.min = text.min.saturating_add(1);
        kept.min = text.min;
    } else if old.max <= new.min {
        kept.min = text.min;
    } else {
        count.min = scale(text.min, 1.0 / old.max as f64);
    }
    count.times(new).plus(kept)
}
