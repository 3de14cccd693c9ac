/* Compiles a profile with libseccomp: rules on standard input, BPF on standard output; on
 * standard error the names that it does not know at all, and those that an ABI lacks or has only through a multiplexer. */
#include <errno.h>
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
	char name[128], names[8][128];
	uint32_t archs[8];
	unsigned known = 0;
	unsigned action, count;
	scmp_filter_ctx filter;
	if (scanf("default %u", &action) != 1 || !(filter = seccomp_init(action)))
		return 3;
	seccomp_arch_remove(filter, SCMP_ARCH_NATIVE);
	while (scanf(" %127s", name) == 1 && strcmp(name, "rules")) {
		uint32_t arch = seccomp_arch_resolve_name(name);
		must(arch ? 0 : -EINVAL, name);
		must(seccomp_arch_add(filter, arch), name);
		archs[known] = arch;
		strcpy(names[known++], name);
	}
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
		for (unsigned i = 0; i < known; i++)
			if (seccomp_syscall_resolve_name_arch(archs[i], name) < 0)
				fprintf(stderr, "LACKS %s %s\n", names[i], name);
		if (number == __NR_SCMP_ERROR)
			fprintf(stderr, "UNKNOWN %s\n", name);
		else
			must(seccomp_rule_add_array(filter, action, number, count, args), name);
	}
	must(seccomp_export_bpf(filter, 1), "export");
	return 0;
}
