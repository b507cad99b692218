# apt with a private state folder, for packages of another suite or architecture than this machine's: from the mirror that its own
# apt uses, signatures checked, nothing installed. Sourced, by sh with -eu; the configuration goes to single calls, never exported.
#
#   mirror=$(apt_mirror)                          empty: this machine's apt knows no Debian mirror
#   apt_state STATE ARCHITECTURE SUITE MIRROR     makes the folder and fetches the lists; its packages go to STATE/archives
#   apt_private STATE COMMAND...                  apt-get or apt-cache on it

apt_keyring=/usr/share/keyrings/debian-archive-keyring.gpg

apt_targets() {
    apt-get indextargets --format '$(ORIGIN)|$(CODENAME)|$(COMPONENT)|$(REPO_URI)' 2>/dev/null |
        sed -n 's/^Debian|[a-z]*|main|//p' | grep -v -e security -e backports | sort -u | head -n 1
}

apt_mirror() {
    mirror=$(apt_targets)
    if [ -z "$mirror" ] && [ "$(id -u)" -eq 0 ]; then
        apt-get update -qq >&2 || true
        mirror=$(apt_targets)
    fi
    if [ -z "$mirror" ]; then # lists never fetched: read the sources themselves
        mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
            sed -n 's/^URIs: *\([^ ]*debian\/*\)\( .*\)*$/\1/p; s/^deb \(\[[^]]*\] \)*\([^ ]*debian\/*\) .* main.*/\2/p' |
            grep -v security | head -n 1)
    fi
    echo "$mirror"
}

apt_private() {
    APT_CONFIG="$1/apt.conf" sh -c 'shift; exec "$@"' sh "$@"
}

apt_state() {
    mkdir -p "$1/lists/partial" "$1/archives/partial" "$1/etc/apt.conf.d" "$1/etc/preferences.d"
    : >"$1/status"
    echo "deb [arch=$2 signed-by=$apt_keyring] $4 $3 main" >"$1/sources.list"
    cat >"$1/apt.conf" <<TXT
APT::Architecture "$2";
APT::Architectures { "$2"; };
APT::Install-Recommends "false";
APT::Get::AllowUnauthenticated "false";
APT::Sandbox::User "";
Acquire::AllowInsecureRepositories "false";
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
Acquire::Retries "3";
Dir::State "$1";
Dir::State::status "$1/status";
Dir::State::lists "$1/lists";
Dir::Cache "$1";
Dir::Cache::archives "$1/archives";
Dir::Etc::sourcelist "$1/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "$1/etc/preferences.d";
TXT
    apt_private "$1" apt-get update -qq >&2
}
