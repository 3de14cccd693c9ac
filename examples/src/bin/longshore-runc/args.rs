//! The command line, read from static tables in the manner of Go's `flag` package, as runc's callers write it: `-root x`, `--root x`
//! and `--root=x` are one; `--tty=false` is said; a flag's value may begin with a dash.

/// A flag of a command.
#[derive(Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    /// Its one-letter form; a space is none.
    pub(crate) short: char,
    pub(crate) takes: Takes,
    pub(crate) help: &'static str,
}

/// What follows a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// Nothing, or `=true` or `=false`.
    Nothing,
    /// A value; said twice, the last one counts.
    Value,
    /// A value; said twice, both count.
    Values,
}

/// Whether flags are also read behind the first argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Anywhere,
    /// What follows the container's id is somebody else's command line.
    BeforeArguments,
}

/// How many arguments a command takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arity {
    Exactly(usize),
    AtLeast(usize),
    Between(usize, usize),
}

/// A command line that was read.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    flags: Vec<(&'static str, String)>,
    rest: Vec<String>,
}

/// Why a command line can't be read, in the words of Go's `flag` package.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Help was asked for.
    Help,
    Usage(String),
}

impl Arguments {
    /// Reads flags of `table` and what follows them.
    pub(crate) fn read(
        table: &'static [Flag],
        order: Order,
        words: impl IntoIterator<Item = String>,
    ) -> Result<Self, Unreadable> {
        let mut words = words.into_iter();
        let mut read = Self::default();
        while let Some(word) = words.next() {
            if word == "--" {
                break;
            }
            let Some(name) = word.strip_prefix('-').filter(|name| !name.is_empty()) else {
                read.rest.push(word);
                if order == Order::BeforeArguments {
                    break;
                }
                continue;
            };
            read.flag(table, name.strip_prefix('-').unwrap_or(name), &mut words)?;
        }
        read.rest.extend(words);
        Ok(read)
    }

    fn flag(
        &mut self,
        table: &'static [Flag],
        word: &str,
        words: &mut impl Iterator<Item = String>,
    ) -> Result<(), Unreadable> {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word, None),
        };
        let is_short = |flag: &Flag| name.len() == 1 && flag.short != ' ' && name.starts_with(flag.short);
        let Some(flag) = table.iter().find(|flag| flag.name == name || is_short(flag)) else {
            return Err(match name {
                "h" | "help" => Unreadable::Help,
                _ => Unreadable::Usage(format!("flag provided but not defined: -{name}")),
            });
        };
        let value = match (flag.takes, value) {
            (Takes::Nothing, None) => "true".to_owned(),
            (Takes::Nothing, Some(value)) => truth(&value)
                .ok_or_else(|| {
                    Unreadable::Usage(format!("invalid boolean value \"{value}\" for -{name}: parse error"))
                })?
                .to_string(),
            (_, Some(value)) => value,
            (_, None) => words
                .next()
                .ok_or_else(|| Unreadable::Usage(format!("flag needs an argument: -{name}")))?,
        };
        self.flags.push((flag.name, value));
        Ok(())
    }

    /// The value of a flag, the last one given.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.flags
            .iter()
            .rev()
            .find(|(flag, _)| *flag == name)
            .map(|(_, value)| value.as_str())
    }

    /// The value of a flag, unless it is empty: many callers write `--console-socket ""` for none.
    pub(crate) fn filled(&self, name: &str) -> Option<&str> {
        self.value(name).filter(|value| !value.is_empty())
    }

    /// All values of a flag, in order.
    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.flags
            .iter()
            .filter(move |(flag, _)| *flag == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a flag without a value is on.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.value(name) == Some("true")
    }

    /// What is not a flag.
    pub(crate) fn rest(&self) -> &[String] {
        &self.rest
    }

    /// The container's id: the first argument.
    pub(crate) fn id(&self) -> &str {
        self.rest.first().map_or("", String::as_str)
    }
}

impl Arity {
    /// What is wrong with this many arguments.
    pub(crate) fn complaint(self, command: &str, given: usize) -> Option<String> {
        match self {
            Self::Exactly(n) if given != n => Some(format!("\"{command}\" requires exactly {n} argument(s)")),
            Self::AtLeast(n) | Self::Between(n, _) if given < n => {
                Some(format!("\"{command}\" requires a minimum of {n} argument(s)"))
            }
            Self::Between(_, n) if given > n => Some(format!("\"{command}\" requires a maximum of {n} argument(s)")),
            _ => None,
        }
    }
}

/// What Go takes for a truth value.
pub(crate) fn truth(word: &str) -> Option<bool> {
    match word {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Flag] = &[
        Flag {
            name: "root",
            short: ' ',
            takes: Takes::Value,
            help: "",
        },
        Flag {
            name: "detach",
            short: 'd',
            takes: Takes::Nothing,
            help: "",
        },
        Flag {
            name: "env",
            short: 'e',
            takes: Takes::Values,
            help: "",
        },
    ];

    fn read(order: Order, words: &[&str]) -> Result<Arguments, Unreadable> {
        Arguments::read(TABLE, order, words.iter().map(|w| (*w).to_owned()))
    }

    #[test]
    fn every_form_of_a_flag_is_one() {
        for words in [
            &["-root", "x"][..],
            &["--root", "x"],
            &["--root=x"],
            &["-root=x"],
            &["--root", "y", "--root=x"],
        ] {
            let read = read(Order::Anywhere, words).expect("read");
            assert_eq!(read.value("root"), Some("x"), "{words:?}");
        }
    }

    #[test]
    fn a_switch_can_be_turned_off() {
        assert!(read(Order::Anywhere, &["-d"]).expect("read").is_on("detach"));
        assert!(
            !read(Order::Anywhere, &["-d", "--detach=false"])
                .expect("read")
                .is_on("detach")
        );
        assert!(matches!(
            read(Order::Anywhere, &["-d=maybe"]),
            Err(Unreadable::Usage(_))
        ));
    }

    #[test]
    fn another_commands_flags_are_left_alone() {
        let read = read(
            Order::BeforeArguments,
            &["-e", "A=1", "-e", "-B", "id", "ls", "-d", "--", "-h"],
        )
        .expect("read");
        assert_eq!(read.values("env").collect::<Vec<_>>(), ["A=1", "-B"]);
        assert_eq!(read.rest(), ["id", "ls", "-d", "--", "-h"]);
        assert!(!read.is_on("detach"));
    }

    #[test]
    fn flags_behind_the_id_count_where_nothing_else_can_follow() {
        let words = read(Order::Anywhere, &["id", "-d"]).expect("read");
        assert!(words.is_on("detach"));
        assert_eq!(words.id(), "id");
        assert_eq!(read(Order::Anywhere, &["--", "-d"]).expect("read").id(), "-d");
    }

    #[test]
    fn what_is_unknown_is_refused() {
        let usage = |text: &str| Some(Unreadable::Usage(text.to_owned()));
        assert_eq!(
            read(Order::Anywhere, &["--x=1"]).err(),
            usage("flag provided but not defined: -x")
        );
        assert_eq!(
            read(Order::Anywhere, &["--root"]).err(),
            usage("flag needs an argument: -root")
        );
        assert_eq!(read(Order::Anywhere, &["-h"]).err(), Some(Unreadable::Help));
    }
}
