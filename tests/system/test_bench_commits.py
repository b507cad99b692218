#!/usr/bin/env python3
"""Two commits held against each other by instructions counted (bench/compare.sh --instructions), on a repository of one file."""
import pathlib, shutil, subprocess, sys, tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'lib'))
from vm import TOP, Skip, main, test

COUNT_C = """#include <stdio.h>
#include <stdlib.h>
int work(int rounds);
int main(int argc, char **argv)
{
    if (argc < 3)
        return puts("busy") < 0;
    return work(atoi(argv[2])) < 0;
}
"""
WORK_C = """int work(int rounds);
int work(int rounds)
{
    volatile int sum = 0;
    for (int i = 0; i < rounds * %d; i++)
        sum++;
    return sum;
}
"""


class Repository:
    """A project of one file and its bench_count, which compare.sh holds against its commits."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder, 'tree')
        self.write('bench/compare.sh', (TOP / 'bench/compare.sh').read_text()).chmod(0o755)
        self.write('bench/bench_count.c', COUNT_C)
        self.write('Makefile', 'build/bench/bench_count: bench/bench_count.c work.c\n'
                   '\tmkdir -p build/bench && $(CC) -O0 -o $@ $^\n')
        self.write('.gitignore', 'build\n')
        self.git('init', '-q')

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def git(self, *words):
        subprocess.run(['git', '-c', 'user.name=test', '-c', 'user.email=test@localhost', '-c', 'commit.gpgsign=false', *words],
                       cwd=self.folder, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def commit(self, turns, message, *options):
        self.write('work.c', WORK_C % turns)
        self.git('add', '-A')
        self.git('commit', '-q', *options, '-m', message)

    def compare(self, folder=None):
        place = pathlib.Path(folder or self.folder)
        done = subprocess.run([place / 'bench/compare.sh', '--instructions'], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.returncode, done.stdout


def repository(folder):
    for tool in ('git', 'valgrind', 'cc', 'make'):
        if not shutil.which(tool):
            raise Skip(f'no {tool} here')
    return Repository(folder)


@test
def a_commit_that_takes_more_instructions_is_found_and_may_say_why():
    with tempfile.TemporaryDirectory(prefix='godwit-') as folder:
        there = repository(folder)
        there.commit(1000, 'the first')
        code, said = there.compare()
        assert code == 0 and 'nothing to compare with' in said, said
        there.commit(1030, 'three per cent')
        code, said = there.compare()
        assert code == 0 and '103.' in said and 'WORSE' not in said, said
        there.commit(1130, 'ten per cent')
        code, said = there.compare()
        assert code == 1 and 'busy' in said and 'WORSE' in said and 'Costs-instructions: why' in said, said
        there.commit(1130, 'ten per cent\n\nCosts-instructions: it is right now', '--amend')
        code, said = there.compare()
        assert code == 0 and 'wanted' in said and 'it is right now' in said, said
        there.commit(900, 'less')
        code, said = there.compare()
        assert code == 0 and 'WORSE' not in said, said
        subprocess.run(['git', 'clone', '-q', '--depth', '1', there.folder.as_uri(), f'{folder}/shallow'], check=True)
        code, said = there.compare(f'{folder}/shallow')
        assert code == 0 and 'no commit before this one' in said, said


@test
def work_that_the_older_commit_cannot_do_is_not_compared():
    with tempfile.TemporaryDirectory(prefix='godwit-') as folder:
        there = repository(folder)
        there.commit(1000, 'the first')
        there.write('bench/bench_count.c', COUNT_C.replace('work(atoi', 'new_name(atoi').replace('int work', 'int new_name'))
        there.write('work.c', (WORK_C % 1000).replace('work(', 'new_name('))
        there.git('commit', '-q', '-a', '-m', 'another name')
        code, said = there.compare()
        assert code == 0 and 'each counts its own' in said and '100.0 %' in said, said


if __name__ == '__main__':
    main()
