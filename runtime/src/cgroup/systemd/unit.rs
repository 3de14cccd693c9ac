//! What systemd is asked to do with a unit (org.freedesktop.systemd1(5)).

use super::super::path::{Instance, Unit};
use super::bus::{Bus, Refusal, Target};
use super::properties::Property;
use super::wire::Value;
use crate::{Error, Result};

const DESTINATION: &str = "org.freedesktop.systemd1";

const MANAGER: Target<'_> = Target {
    destination: DESTINATION,
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
    member: "",
};

const EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// systemd, as it is reached over its bus.
#[derive(Debug)]
pub(in super::super) struct Systemd {
    bus: Bus,
}

impl Systemd {
    /// Connects to the instance that manages the machine's units, or a user's.
    pub(in super::super) fn connect(instance: Instance) -> Result<Self> {
        Self::at(&address(instance)?)
    }

    pub(super) fn at(address: &str) -> Result<Self> {
        let told = told(format!("connect to systemd over the bus at {address}"));
        let mut bus = Bus::connect(address).map_err(&told)?;
        let rule = "type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";
        bus.subscribe(rule).map_err(&told)?;
        let call = Target {
            member: "Subscribe",
            ..MANAGER
        };
        bus.call(call, &[]).map_err(&told)?;
        Ok(Self { bus })
    }

    /// Starts a transient unit and waits until it is there. A failed one of the same name is cleared away.
    pub(in super::super) fn start(&mut self, unit: &Unit, properties: &[Property]) -> Result<()> {
        let name = &unit.name;
        let told = told(format!("start the systemd unit {name}"));
        let properties = properties.iter().map(Property::value).collect();
        let body = [
            Value::text(name),
            Value::text("replace"),
            Value::Array("(sv)".into(), properties),
            Value::Array("(sa(sv))".into(), Vec::new()),
        ];
        let mut job = self.manager("StartTransientUnit", &body);
        if matches!(&job, Err(Refusal::Named(error, _)) if error == EXISTS) {
            // The leftover of one that failed, perhaps.
            let _ = self.reset(unit);
            job = self.manager("StartTransientUnit", &body);
        }
        let job = job.map_err(&told)?;
        match self.finish(&job).map_err(&told)?.as_str() {
            "done" => Ok(()),
            result => {
                let _ = self.reset(unit);
                Err(told(Refusal::Io(std::io::Error::other(format!(
                    "its job ended as '{result}'"
                )))))
            }
        }
    }

    /// Stops a unit, waits for that, and has systemd forget it if it failed. One that is not there is no error.
    pub(in super::super) fn stop(&mut self, unit: &Unit) -> Result<()> {
        let told = told(format!("stop the systemd unit {}", unit.name));
        let body = [Value::text(&unit.name), Value::text("replace")];
        match self.manager("StopUnit", &body) {
            Ok(job) => drop(self.finish(&job).map_err(&told)?),
            Err(Refusal::Named(error, _)) if error == NO_SUCH => {}
            Err(refusal) => return Err(told(refusal)),
        }
        let _ = self.reset(unit);
        Ok(())
    }

    /// Changes properties of a unit, until the machine is switched off.
    pub(in super::super) fn set(&mut self, unit: &Unit, properties: &[Property]) -> Result<()> {
        let properties = properties.iter().map(Property::value).collect();
        let body = [
            Value::text(&unit.name),
            Value::Bool(true),
            Value::Array("(sv)".into(), properties),
        ];
        let told = told(format!("set properties of the systemd unit {}", unit.name));
        self.manager("SetUnitProperties", &body).map(drop).map_err(told)
    }

    /// The group that this instance of systemd manages: the root, or the user's part of the tree.
    pub(in super::super) fn group(&mut self) -> Result<String> {
        self.property("ControlGroup")
    }

    /// The version, which some properties depend on.
    pub(in super::super) fn version(&mut self) -> Result<u32> {
        let text = self.property("Version")?;
        let digits: String = text
            .chars()
            .skip_while(|c| !c.is_ascii_digit())
            .take_while(char::is_ascii_digit)
            .collect();
        digits.parse().map_err(|_| {
            told("ask systemd for its version".into())(Refusal::Io(std::io::Error::other(format!("it says '{text}'"))))
        })
    }

    fn property(&mut self, name: &str) -> Result<String> {
        let call = Target {
            interface: "org.freedesktop.DBus.Properties",
            member: "Get",
            ..MANAGER
        };
        let body = [Value::text(MANAGER.interface), Value::text(name)];
        let told = told(format!("ask systemd for its {name}"));
        let reply = self.bus.call(call, &body).map_err(told)?;
        Ok(reply.first().and_then(Value::as_text).unwrap_or_default().to_owned())
    }

    fn reset(&mut self, unit: &Unit) -> Result<(), Refusal> {
        self.manager("ResetFailedUnit", &[Value::text(&unit.name)]).map(drop)
    }

    fn manager(&mut self, member: &str, body: &[Value]) -> Result<Vec<Value>, Refusal> {
        self.bus.call(Target { member, ..MANAGER }, body)
    }

    /// Waits for the end of the job that a call answered with, and returns its result.
    fn finish(&mut self, job: &[Value]) -> Result<String, Refusal> {
        let job = job.first().and_then(Value::as_text).unwrap_or_default();
        loop {
            // Number, job, unit, result.
            let signal = self.bus.signal("JobRemoved")?;
            if signal.body.get(1).and_then(Value::as_text) == Some(job) {
                let result = signal.body.get(3).and_then(Value::as_text);
                return Ok(result.unwrap_or_default().to_owned());
            }
        }
    }
}

#[cfg(test)]
thread_local! {
    /// The bus of a test.
    pub(super) static BUS: std::cell::RefCell<Option<String>> = const { std::cell::RefCell::new(None) };
}

/// The address of the bus: the environment's, or where it is by convention.
fn address(instance: Instance) -> Result<String> {
    #[cfg(test)]
    if let Some(address) = BUS.with_borrow(Clone::clone) {
        return Ok(address);
    }
    let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    match instance {
        Instance::System => {
            let usual = || "unix:path=/run/dbus/system_bus_socket".to_owned();
            Ok(given("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_else(usual))
        }
        Instance::User => given("DBUS_SESSION_BUS_ADDRESS")
            .or_else(|| given("XDG_RUNTIME_DIR").map(|dir| format!("unix:path={dir}/bus")))
            .ok_or_else(|| Error::Unsupported {
                field: "linux.cgroupsPath".into(),
                reason: "the user's systemd is not found: neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set"
                    .into(),
            }),
    }
}

fn told(action: String) -> impl Fn(Refusal) -> Error {
    move |refusal| match refusal {
        Refusal::Io(source) => Error::Io {
            action: action.clone(),
            source,
        },
        Refusal::Named(name, words) => Error::Io {
            action: action.clone(),
            source: std::io::Error::other(format!("{words} ({name})")),
        },
    }
}
