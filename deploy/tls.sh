#!/bin/sh
# Makes a certificate authority and certificates for a trial of TLS, with openssl. A hospital's own authority signs those of real use: README, "TLS".
# usage: sh deploy/tls.sh FOLDER NAME[,NAME or IP …] …       e.g. sh deploy/tls.sh certificates node,node.example,10.0.0.5 archive,pacs.example
# Each argument becomes FOLDER/FIRST-NAME.pem and .key, valid as server and client under all its names; FOLDER/ca.pem is what peers have to know.
# Run it again with other names to add certificates of the same authority; those that are there already stay.
set -eu
[ $# -ge 2 ] || { sed -n '2,5s/^# //p' "$0" >&2; exit 2; }
command -v openssl >/dev/null 2>&1 || { echo "error: openssl is not installed: install the package openssl" >&2; exit 1; }
folder=$1
shift
umask 077
mkdir -p "$folder"
days=${DAYS:-397}
subject() { printf '/O=pacs-node trial/CN=%s' "$1"; }
if [ ! -s "$folder/ca.pem" ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-384 -nodes -sha384 -days 1826 -subj "$(subject 'trial authority')" \
        -addext 'basicConstraints=critical,CA:TRUE,pathlen:0' -addext 'keyUsage=critical,keyCertSign,cRLSign' \
        -keyout "$folder/ca.key" -out "$folder/ca.pem" 2>/dev/null
    echo "made $folder/ca.pem: give it to every peer. Keep $folder/ca.key to yourself"
fi
for names in "$@"; do
    first=${names%%,*}
    case "$first" in ca | '' | */* | .*) echo "error: '$first' cannot name a file: begin with a name such as node" >&2; exit 2 ;; esac
    [ -s "$folder/$first.pem" ] && { echo "kept $folder/$first.pem"; continue; }
    alternatives=
    for name in $(printf '%s' "$names" | tr ',' ' '); do
        case "$name" in *:* | *[0-9].[0-9]*.[0-9]*.[0-9]*) kind=IP ;; *) kind=DNS ;; esac
        alternatives="$alternatives${alternatives:+,}$kind:$name"
    done
    printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=%s\n' "$alternatives" \
        >"$folder/$first.ext"
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$(subject "$first")" -keyout "$folder/$first.key" -out "$folder/$first.csr" 2>/dev/null
    openssl x509 -req -sha256 -days "$days" -in "$folder/$first.csr" -CA "$folder/ca.pem" -CAkey "$folder/ca.key" -CAcreateserial \
        -extfile "$folder/$first.ext" -out "$folder/$first.pem" 2>/dev/null
    rm -f "$folder/$first.csr" "$folder/$first.ext"
    chmod 0644 "$folder/$first.pem" "$folder/ca.pem"
    echo "made $folder/$first.pem and $folder/$first.key for $alternatives, valid for $days days"
done
