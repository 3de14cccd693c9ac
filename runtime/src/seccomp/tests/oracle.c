/* Compiles a profile with libseccomp: rules on standard input, BPF on standard output, unknown names on standard error. */
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void must(int code, const char *what)
{
	if (code) {
		fprintf(stderr, "ERROR %s: %s\n", what, strerror(-code));
		exit(2);
	}
}

int main(void)
{
	char name[128];
	unsigned action, count;
	scmp_filter_ctx filter;
	if (scanf("default %u", &action) != 1 || !(filter = seccomp_init(action)))
		return 3;
	seccomp_arch_remove(filter, SCMP_ARCH_NATIVE);
	while (scanf(" arch %127s", name) == 1)
		must(seccomp_arch_add(filter, seccomp_arch_resolve_name(name)), name);
	while (scanf(" %127s %u %u", name, &action, &count) == 3) {
		struct scmp_arg_cmp args[6];
		int number = seccomp_syscall_resolve_name(name);
		for (unsigned i = 0; i < count; i++) {
			unsigned index, op;
			unsigned long long a, b;
			if (scanf(" %u %u %llu %llu", &index, &op, &a, &b) != 4)
				return 3;
			args[i] = (struct scmp_arg_cmp){ index, op, a, b };
		}
		if (number == __NR_SCMP_ERROR)
			fprintf(stderr, "UNKNOWN %s\n", name);
		else
			must(seccomp_rule_add_array(filter, action, number, count, args), name);
	}
	must(seccomp_export_bpf(filter, 1), "export");
	return 0;
}
