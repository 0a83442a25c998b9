# shellcheck shell=sh
# What OpenWrt's packages run after an installation and before a removal, for tests.
files_of_package() { # files_of_package SCRIPT PATTERN
    name=${1##*/}
    for list in "${IPKG_INSTROOT-}/usr/lib/opkg/info/${name%.*}.list" "${IPKG_INSTROOT-}/lib/apk/packages/${name%.*}.list"; do
        grep -s "^$2" "$list"
    done
}

default_postinst() {
    if [ -z "${IPKG_INSTROOT-}" ]; then
        for file in $(files_of_package "$1" /etc/uci-defaults/); do
            # shellcheck source=/dev/null
            [ ! -f "$file" ] || { (cd "${file%/*}" && . "$file") && rm -f "$file"; }
        done
        uci commit firewall
    fi
    for file in $(files_of_package "$1" /etc/init.d/); do
        if [ -n "${IPKG_INSTROOT-}" ]; then
            sh "$IPKG_INSTROOT/etc/rc.common" "$IPKG_INSTROOT$file" enable
        else
            [ "${PKG_UPGRADE-}" = 1 ] || "$file" enable
            "$file" start
        fi
    done
    return 0
}

default_prerm() {
    for file in $(files_of_package "$1" /etc/init.d/); do
        if [ -n "${IPKG_INSTROOT-}" ]; then
            sh "$IPKG_INSTROOT/etc/rc.common" "$IPKG_INSTROOT$file" disable
        else
            [ "${PKG_UPGRADE-}" = 1 ] || "$file" disable
            "$file" stop
        fi
    done
    return 0
}
