# frozen_string_literal: true

# Obtains a certificate with acme-client, the ACME library for Ruby.
#
#     ruby certificate.rb DIRECTORY ROOTS ADDRESS PORT NAME...
#
# It trusts the certificates in the file ROOTS, answers http-01 challenges on ADDRESS and PORT, and prints the chain. Its
# certificate request has version 3 on the wire, as the library of Debian 12 makes it.

require 'acme-client'
require 'socket'

PAUSE = 0.2
POLLS = 150

# Answers http-01 challenges in the background, until the program ends.
def serve(address, port, answers)
  server = TCPServer.new(address, port)
  Thread.new do
    loop do
      connection = server.accept
      path = connection.gets.to_s.split[1]
      body = answers.fetch(path, '')
      status = answers.key?(path) ? '200 OK' : '404 Not Found'
      connection.write("HTTP/1.1 #{status}\r\nContent-Length: #{body.bytesize}\r\nConnection: close\r\n\r\n#{body}")
      connection.close
    end
  end
end

def wait_for(resource, *statuses)
  POLLS.times do
    resource.reload
    return resource if statuses.include?(resource.status)
    abort "#{resource.class} is invalid: #{resource.to_h}" if resource.status == 'invalid'

    sleep PAUSE
  end
  abort "#{resource.class} is still #{resource.status}"
end

directory, roots, address, port, *names = ARGV
client = Acme::Client.new(
  private_key: OpenSSL::PKey::EC.generate('prime256v1'),
  directory: directory,
  connection_options: { ssl: { ca_file: roots } }
)
begin
  client.new_account(contact: 'mailto:team@example.com', terms_of_service_agreed: true)
  answers = {}
  serve(address, port.to_i, answers)
  order = client.new_order(identifiers: names)
  order.authorizations.each do |authorization|
    challenge = authorization.http
    answers["/#{challenge.filename}"] = challenge.file_content
    challenge.request_validation
    wait_for(challenge, 'valid')
  end
  wait_for(order, 'ready')
  order.finalize(csr: Acme::Client::CertificateRequest.new(names: names))
  puts wait_for(order, 'valid').certificate
rescue Acme::Client::Error => e
  abort "#{e.class}: #{e.message}"
end
