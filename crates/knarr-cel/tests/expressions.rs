//! Rows of expressions and what comes of them, from `cases/*.cel`.
//!
//! A row is `expression ==> value`, `expression ==! error of the evaluation` or `expression ==? error of the compiler`; a line
//! that begins with `@` gives the variables of the rows after it, as JSON. Variables are of type dyn.

use std::fmt::Write;

use knarr_cel::{Budget, Environment, Type, Value, Variables};
use serde_json::Value as Json;

#[derive(Clone, Copy)]
enum Want<'t> {
    Value(&'t str),
    Failure(&'t str),
    Refusal(&'t str),
}

fn parse(line: &str) -> Option<(&str, Want<'_>)> {
    [" ==> ", " ==! ", " ==? "].into_iter().find_map(|mark| {
        let (expression, wanted) = line.split_once(mark)?;
        let wanted = wanted.trim();
        let want = match mark {
            " ==> " => Want::Value(wanted),
            " ==! " => Want::Failure(wanted),
            _ => Want::Refusal(wanted),
        };
        Some((expression.trim(), want))
    })
}

/// What is wrong with a row.
fn check(expression: &str, want: Want<'_>, bindings: &Json) -> Result<(), String> {
    let names = bindings.as_object().into_iter().flatten();
    let environment = names.clone().fold(Environment::new(), |e, (name, _)| e.declare(name, Type::Dyn));
    let environment = environment.with_mutation_types();
    let program = match (environment.compile(expression), want) {
        (Ok(program), _) => program,
        (Err(error), Want::Refusal(wanted)) => {
            let shown = error.to_string();
            let fine = shown.contains(&wanted.replace("\\n", "\n"));
            return if fine { Ok(()) } else { Err(format!("refused with {shown}")) };
        }
        (Err(error), _) => return Err(format!("does not compile: {error}")),
    };
    let variables = names.fold(Variables::new(), |v, (name, json)| v.bind(name.as_str(), Value::from_json(json)));
    match (program.evaluate(&variables, &mut Budget::default()), want) {
        (Ok(value), Want::Value(wanted)) if format!("{value:?}") == wanted => Ok(()),
        (Ok(value), _) => Err(format!("is {value:?}")),
        (Err(error), Want::Failure(wanted)) if error.to_string().contains(wanted) => Ok(()),
        (Err(error), _) => Err(format!("fails with {error}")),
    }
}

#[test]
fn every_row_is_as_it_says() {
    let mut wrong = String::new();
    let mut rows = 0;
    let mut files: Vec<_> = std::fs::read_dir("tests/cases")
        .expect("the cases are beside this test")
        .map(|entry| entry.expect("it can be read").path())
        .filter(|path| path.extension().is_some_and(|e| e == "cel"))
        .collect();
    files.sort();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("it is a text");
        let mut bindings = Json::Null;
        for (number, line) in text.lines().enumerate() {
            if let Some(json) = line.strip_prefix('@') {
                bindings = serde_json::from_str(json).expect("bindings are JSON");
            } else if !line.trim().is_empty() && !line.starts_with('#') {
                let (expression, want) = parse(line).unwrap_or_else(|| panic!("{file:?}:{}: no row", number + 1));
                rows += 1;
                if let Err(why) = check(expression, want, &bindings) {
                    writeln!(wrong, "{}:{}: {line}\n    {why}", file.display(), number + 1).expect("a string grows");
                }
            }
        }
    }
    assert!(wrong.is_empty(), "of {rows} rows:\n{wrong}");
    assert!(rows > 300, "only {rows} rows were found");
}
