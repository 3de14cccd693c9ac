//! Compiling a profile as large as the container engines' own against having it compiled already, and against parsing it.

use criterion::{Criterion, criterion_group, criterion_main};
use longshore::runtime::seccomp::{Arch, FilterCache, compile};
use serde_json::{Value, json};

/// Allows nine calls of ten, looks at the arguments of a few and refuses the others.
fn profile() -> Value {
    let names: Vec<_> = Arch::X86_64.calls().map(|(name, _)| name).collect();
    let allowed: Vec<_> = names
        .iter()
        .enumerate()
        .filter(|(n, _)| n % 10 != 0)
        .map(|(_, name)| name)
        .collect();
    let equal = |value: u64| json!([{ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }]);
    let mut rules = vec![json!({ "names": allowed, "action": "SCMP_ACT_ALLOW" })];
    for value in [0, 8, 0x20000, 0x20008, 0xffff_ffff] {
        rules.push(json!({ "names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": equal(value) }));
    }
    json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"] })
}

fn filters(criterion: &mut Criterion) {
    let value = profile();
    let text = value.to_string();
    let profile = serde_json::from_value(value).expect("a profile");
    let cache = FilterCache::new();
    let filter = cache.compile(&profile, Arch::X86_64).expect("compiles");
    let mut group = criterion.benchmark_group(format!("a filter of {} instructions", filter.instructions.len()));
    group.bench_function("floor: parse the profile", |bencher| {
        bencher.iter(|| serde_json::from_str::<Value>(&text).expect("JSON"));
    });
    group.bench_function("compile", |bencher| {
        bencher.iter(|| compile(&profile, Arch::X86_64).expect("compiles"));
    });
    group.bench_function("compiled before", |bencher| {
        bencher.iter(|| cache.compile(&profile, Arch::X86_64).expect("kept"));
    });
    group.finish();
}

criterion_group!(benches, filters);
criterion_main!(benches);
