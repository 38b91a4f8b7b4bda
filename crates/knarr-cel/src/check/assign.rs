//! Which types agree, and what type parameters stand for.

use crate::functions::Overload;
use crate::types::{Fields, StructType, Type};

/// What the type variables seen so far stand for.
#[derive(Default)]
pub struct Mapping {
    bound: Vec<Option<Type>>,
    /// What each binding since the last decision replaced, so that a failed attempt can be undone.
    undo: Vec<(u32, Option<Type>)>,
}

impl Mapping {
    /// A variable that stands for nothing yet.
    pub fn fresh(&mut self) -> Type {
        self.bound.push(None);
        Type::Variable((self.bound.len() - 1) as u32)
    }

    /// An overload's parameters and result with fresh variables for its type parameters.
    pub fn instantiate(&mut self, overload: &Overload) -> (Vec<Type>, Type) {
        if !overload.generic {
            return (overload.parameters.clone(), overload.result.clone());
        }
        let mut names: Vec<(char, Type)> = Vec::new();
        let parameters = overload.parameters.iter().map(|p| self.replace(p, &mut names)).collect();
        (parameters, self.replace(&overload.result, &mut names))
    }

    fn replace(&mut self, given: &Type, names: &mut Vec<(char, Type)>) -> Type {
        match given {
            Type::Named(letter) => match names.iter().find(|(known, _)| known == letter) {
                Some((_, variable)) => variable.clone(),
                None => {
                    let variable = self.fresh();
                    names.push((*letter, variable.clone()));
                    variable
                }
            },
            Type::List(element) => Type::list(self.replace(element, names)),
            Type::Map(entry) => Type::map(self.replace(&entry.0, names), self.replace(&entry.1, names)),
            Type::Type(Some(of)) => Type::Type(Some(self.replace(of, names).into())),
            Type::Opaque(name, Some(of)) => Type::Opaque(name.clone(), Some(self.replace(of, names).into())),
            other => other.clone(),
        }
    }

    fn find(&self, variable: u32) -> Option<&Type> {
        self.bound.get(variable as usize)?.as_ref()
    }

    fn bind(&mut self, variable: u32, to: Type) {
        let before = self.bound[variable as usize].replace(to);
        self.undo.push((variable, before));
    }

    /// The type with every bound variable replaced by what it stands for; free ones become dyn if `free_is_dyn`.
    pub fn substitute(&self, given: &Type, free_is_dyn: bool) -> Type {
        match given {
            Type::Variable(variable) => match self.find(*variable) {
                Some(bound) => self.substitute(bound, free_is_dyn),
                None if free_is_dyn => Type::Dyn,
                None => given.clone(),
            },
            Type::List(element) => Type::list(self.substitute(element, free_is_dyn)),
            Type::Map(entry) => {
                Type::map(self.substitute(&entry.0, free_is_dyn), self.substitute(&entry.1, free_is_dyn))
            }
            Type::Type(Some(of)) => Type::Type(Some(self.substitute(of, free_is_dyn).into())),
            Type::Opaque(name, Some(of)) => Type::Opaque(name.clone(), Some(self.substitute(of, free_is_dyn).into())),
            other => other.clone(),
        }
    }

    /// Whether the types agree; if so, what their variables must stand for is remembered.
    pub fn assignable(&mut self, a: &Type, b: &Type) -> bool {
        self.attempt(|mapping| mapping.agree(a, b))
    }

    pub fn all_assignable(&mut self, given: &[Type], wanted: &[Type]) -> bool {
        given.len() == wanted.len()
            && self.attempt(|mapping| given.iter().zip(wanted).all(|(a, b)| mapping.agree(a, b)))
    }

    fn attempt(&mut self, decide: impl FnOnce(&mut Self) -> bool) -> bool {
        self.undo.clear();
        if decide(self) {
            return true;
        }
        while let Some((variable, before)) = self.undo.pop() {
            self.bound[variable as usize] = before;
        }
        false
    }

    fn agree(&mut self, a: &Type, b: &Type) -> bool {
        if let Type::Variable(variable) = b {
            let (valid, bound) = self.can_stand_for(a, b, *variable);
            if valid || bound {
                return valid;
            }
        }
        if let Type::Variable(variable) = a {
            return self.can_stand_for(b, a, *variable).0;
        }
        if a.is_dyn_or_error() || b.is_dyn_or_error() {
            return true;
        }
        match (a, b) {
            (Type::Null, other) | (other, Type::Null) => is_nullable(other),
            (Type::Type(_), Type::Type(_)) => true,
            (Type::List(a), Type::List(b)) => self.agree(a, b),
            (Type::Map(a), Type::Map(b)) => self.agree(&a.0, &b.0) && self.agree(&a.1, &b.1),
            (Type::Opaque(a, x), Type::Opaque(b, y)) => match (x, y) {
                (Some(x), Some(y)) => a == b && self.agree(x, y),
                (x, y) => a == b && x.is_none() == y.is_none(),
            },
            (Type::Struct(a), Type::Struct(b)) => a.name == b.name || builds_objects(a) && builds_objects(b),
            (a, b) => a.is_exactly(b),
        }
    }

    /// Whether `variable` (which is `as_type`) can stand for `given`, and whether it stands for something already.
    fn can_stand_for(&mut self, given: &Type, as_type: &Type, variable: u32) -> (bool, bool) {
        if given.is_exactly(as_type) {
            return (true, true);
        }
        let Some(bound) = self.find(variable).cloned() else {
            if self.occurs(variable, given) {
                return (false, false);
            }
            self.bind(variable, given.clone());
            return (true, false);
        };
        if given.is_exactly(&bound) {
            return (true, true);
        }
        if !self.agree(given, &bound) {
            return (false, true);
        }
        let general = most_general(given, &bound);
        if !self.occurs(variable, &general) {
            self.bind(variable, general);
        }
        (true, true)
    }

    /// Whether a type speaks of a variable.
    fn occurs(&self, variable: u32, within: &Type) -> bool {
        match within {
            Type::Variable(other) if *other == variable => true,
            Type::Variable(other) => self.find(*other).is_some_and(|bound| self.occurs(variable, bound)),
            Type::List(element) => self.occurs(variable, element),
            Type::Map(entry) => self.occurs(variable, &entry.0) || self.occurs(variable, &entry.1),
            Type::Type(Some(of)) | Type::Opaque(_, Some(of)) => self.occurs(variable, of),
            _ => false,
        }
    }
}

/// Objects that a mutation builds: any of them may stand where another is wanted.
fn builds_objects(declared: &StructType) -> bool {
    matches!(declared.fields, Fields::Any)
}

fn is_nullable(other: &Type) -> bool {
    matches!(other, Type::Null | Type::Opaque(..) | Type::Struct(_) | Type::Duration | Type::Timestamp)
}

/// The one of two agreeing types that says less.
pub fn most_general(a: &Type, b: &Type) -> Type {
    if says_no_more(a, b) { a.clone() } else { b.clone() }
}

fn says_no_more(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Dyn | Type::Variable(_), _) => true,
        (_, Type::Dyn | Type::Variable(_)) => false,
        (Type::Opaque(a, Some(x)), Type::Opaque(b, Some(y))) => a == b && says_no_more(x, y),
        (Type::List(a), Type::List(b)) => says_no_more(a, b),
        (Type::Map(a), Type::Map(b)) => says_no_more(&a.0, &b.0) && says_no_more(&a.1, &b.1),
        (Type::Type(_), Type::Type(_)) => true,
        (a, b) => a.is_exactly(b),
    }
}
